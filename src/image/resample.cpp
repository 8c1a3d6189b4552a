// Resampling with Pillow's arithmetic (src/libImaging/Resample.c and Geometry.c), so that pictures
// are the same to the bit: fixed-point coefficients, horizontal pass first, rounding between.
#include <algorithm>
#include <cmath>
#include <vector>

#include "graft/error.h"
#include "graft/image.h"

namespace graft {
namespace {

// 8 bits of result, 2 bits of headroom for overshoot, of 32 (Pillow's PRECISION_BITS).
constexpr int kPrecisionBits = 32 - 8 - 2;

/// For each output position: where its window begins, and the fixed-point weights of the window.
struct Windows {
  int length = 0;  // weights kept per position
  std::vector<int> first;
  std::vector<int> count;
  std::vector<int> weights;
};

Windows triangle_windows(int in, int out) {
  const double scale = static_cast<double>(in) / out;
  const double filter_scale = std::max(scale, 1.0);  // widened when shrinking: antialias
  const double support = 1.0 * filter_scale;
  Windows windows;
  windows.length = static_cast<int>(std::ceil(support)) * 2 + 1;
  windows.first.resize(out);
  windows.count.resize(out);
  windows.weights.assign(static_cast<size_t>(out) * windows.length, 0);
  std::vector<double> raw(windows.length);
  for (int x = 0; x < out; ++x) {
    const double center = (x + 0.5) * scale;
    const int first = std::max(static_cast<int>(center - support + 0.5), 0);
    const int last = std::min(static_cast<int>(center + support + 0.5), in);
    const int count = last - first;
    double sum = 0;
    for (int i = 0; i < count; ++i) {
      const double distance = std::abs((i + first - center + 0.5) / filter_scale);
      raw[i] = distance < 1.0 ? 1.0 - distance : 0.0;
      sum += raw[i];
    }
    for (int i = 0; i < count; ++i) {
      const double weight = sum != 0 ? raw[i] / sum : raw[i];
      windows.weights[static_cast<size_t>(x) * windows.length + i] =
          static_cast<int>(0.5 + weight * (1 << kPrecisionBits));
    }
    windows.first[x] = first;
    windows.count[x] = count;
  }
  return windows;
}

uint8_t clip(int value) {
  return static_cast<uint8_t>(std::clamp(value >> kPrecisionBits, 0, 255));
}

Image resize_horizontally(const Image& image, int width) {
  const Windows windows = triangle_windows(image.width, width);
  Image out{width, image.height, std::vector<uint8_t>(size_t{3} * width * image.height)};
  for (int y = 0; y < image.height; ++y) {
    const uint8_t* row = &image.pixels[size_t{3} * image.width * y];
    uint8_t* to = &out.pixels[size_t{3} * width * y];
    for (int x = 0; x < width; ++x, to += 3) {
      const int* weight = &windows.weights[static_cast<size_t>(x) * windows.length];
      const uint8_t* from = row + size_t{3} * windows.first[x];
      int sum[3] = {1 << (kPrecisionBits - 1), 1 << (kPrecisionBits - 1),
                    1 << (kPrecisionBits - 1)};
      for (int i = 0; i < windows.count[x]; ++i, from += 3)
        for (int c = 0; c < 3; ++c) sum[c] += from[c] * weight[i];
      for (int c = 0; c < 3; ++c) to[c] = clip(sum[c]);
    }
  }
  return out;
}

Image resize_vertically(const Image& image, int height) {
  const Windows windows = triangle_windows(image.height, height);
  const size_t stride = size_t{3} * image.width;
  Image out{image.width, height, std::vector<uint8_t>(stride * height)};
  std::vector<int> sum(stride);
  for (int y = 0; y < height; ++y) {
    const int* weight = &windows.weights[static_cast<size_t>(y) * windows.length];
    std::fill(sum.begin(), sum.end(), 1 << (kPrecisionBits - 1));
    for (int i = 0; i < windows.count[y]; ++i) {
      const uint8_t* from = &image.pixels[stride * (windows.first[y] + i)];
      for (size_t k = 0; k < stride; ++k) sum[k] += from[k] * weight[i];
    }
    uint8_t* to = &out.pixels[stride * y];
    for (size_t k = 0; k < stride; ++k) to[k] = clip(sum[k]);
  }
  return out;
}

Image resize_nearest(const Image& image, int width, int height) {
  Image out{width, height, std::vector<uint8_t>(size_t{3} * width * height)};
  const double step_x = static_cast<double>(image.width) / width;
  const double step_y = static_cast<double>(image.height) / height;
  // Pillow adds the step up instead of multiplying; its rounding errors are part of the result.
  std::vector<int> columns(width);
  double at = step_x * 0.5;
  for (int x = 0; x < width; ++x, at += step_x)
    columns[x] = std::min(static_cast<int>(at), image.width - 1);
  at = step_y * 0.5;
  for (int y = 0; y < height; ++y, at += step_y) {
    const int row = std::min(static_cast<int>(at), image.height - 1);
    const uint8_t* from = &image.pixels[size_t{3} * image.width * row];
    uint8_t* to = &out.pixels[size_t{3} * width * y];
    for (int x = 0; x < width; ++x)
      std::copy_n(from + size_t{3} * columns[x], 3, to + size_t{3} * x);
  }
  return out;
}

}  // namespace

Image resize(const Image& image, int width, int height, Resampling filter) {
  if (width < 1 || height < 1)
    fail(ErrorKind::usage, "cannot resize a picture to {}x{}; sizes start at 1", width, height);
  if (width == image.width && height == image.height) return image;
  if (filter == Resampling::nearest) return resize_nearest(image, width, height);
  if (width == image.width) return resize_vertically(image, height);
  const Image narrowed = resize_horizontally(image, width);
  return height == image.height ? narrowed : resize_vertically(narrowed, height);
}

}  // namespace graft
