#include <algorithm>
#include <cmath>

#include "base/fail.h"
#include "graft/image.h"
#include "image/resample.h"

namespace graft {

Preprocessing keras_preprocessing() {
  Preprocessing p;
  p.bgr = true;
  p.shift = {103.939F, 116.779F, 123.68F};
  return p;
}

Preprocessing unit_preprocessing() {
  Preprocessing p;
  p.scale.fill(1.0F / 255.0F);
  return p;
}

Preprocessing symmetric_preprocessing() {
  Preprocessing p;
  p.scale.fill(1.0F / 127.5F);
  p.shift.fill(1.0F);
  return p;
}

Preprocessing raw_preprocessing() { return {}; }

Preprocessing scratch_preprocessing() {
  constexpr std::array<double, 3> kMean = {0.485, 0.456, 0.406};
  constexpr std::array<double, 3> kStd = {0.229, 0.224, 0.225};
  Preprocessing p;
  for (size_t c = 0; c < 3; ++c) {
    p.scale.at(c) = static_cast<float>(1.0 / (255.0 * kStd.at(c)));
    p.shift.at(c) = static_cast<float>(kMean.at(c) / kStd.at(c));
  }
  return p;
}

Preprocessing torchvision_preprocessing() {
  Preprocessing p = scratch_preprocessing();
  p.crop_ratio = 256.0 / 224.0;
  return p;
}

void check_image(const Image& image) {
  if (image.width < 1 || image.height < 1 ||
      image.pixels.size() !=
          size_t{3} * static_cast<size_t>(image.width) * static_cast<size_t>(image.height))
    fail(ErrorKind::usage,
         "an image of {}x{} pixels with {} bytes; expected a width and a height of at least 1, and "
         "3 bytes a pixel",
         image.width, image.height, image.pixels.size());
}

Image fit_image(const Image& image, int width, int height, const Preprocessing& preprocessing) {
  check_image(image);
  constexpr double kMaxRatio = 16;
  if (!(preprocessing.crop_ratio >= 0 && preprocessing.crop_ratio <= kMaxRatio))
    fail(ErrorKind::usage, "crop_ratio is {:g}; expected 0 (stretched) to {:g}",
         preprocessing.crop_ratio, kMaxRatio);
  if (preprocessing.crop_ratio <= 0) return resize(image, width, height, preprocessing.resampling);
  // torchvision: the shorter side becomes `target`, the longer int(target · long / short).
  const double ratio = preprocessing.crop_ratio;
  const auto target_w = static_cast<double>(std::lround(width * ratio));
  const auto target_h = static_cast<double>(std::lround(height * ratio));
  const double zoom = std::max(target_w / image.width, target_h / image.height);
  const double scaled_w = std::max(std::floor(image.width * zoom + 1e-6), double{1} * width);
  const double scaled_h = std::max(std::floor(image.height * zoom + 1e-6), double{1} * height);
  constexpr double kMaxSide = 1 << 30;  // of what is never made as a whole
  if (std::max(scaled_w, scaled_h) > kMaxSide)
    fail(ErrorKind::input, "an image of {}x{} pixels is too narrow to be cut to {}x{}", image.width,
         image.height, width, height);
  const auto w = static_cast<int>(scaled_w);
  const auto h = static_cast<int>(scaled_h);
  // CenterCrop rounds half to even, as Python's round() does.
  const auto left = static_cast<int>(std::nearbyint((w - width) / 2.0));
  const auto top = static_cast<int>(std::nearbyint((h - height) / 2.0));
  return resize_part(image, w, h, {left, top, width, height}, preprocessing.resampling);
}

void to_input(const uint8_t* pixels, int width, int height, const Preprocessing& preprocessing,
              float* out) {
  const size_t count = static_cast<size_t>(width) * height;
  for (size_t c = 0; c < 3; ++c) {
    const size_t source = preprocessing.bgr ? 2 - c : c;
    const float scale = preprocessing.scale.at(c);
    const float shift = preprocessing.shift.at(c);
    float* plane = out + c * count;
    for (size_t i = 0; i < count; ++i)
      plane[i] = static_cast<float>(pixels[i * 3 + source]) * scale - shift;
  }
}

void to_input(const Image& image, const Preprocessing& preprocessing, float* out) {
  check_image(image);
  to_input(image.pixels.data(), image.width, image.height, preprocessing, out);
}

}  // namespace graft
