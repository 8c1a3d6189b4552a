#include "image/codecs.h"

#include <algorithm>

#include "base/fail.h"

namespace graft {

void check_dimensions(const EncodedImage& encoded, int64_t width, int64_t height) {
  if (width < 1 || height < 1)
    fail(ErrorKind::input, "{}: the header says {}x{} pixels; remove or replace the file",
         encoded.name, width, height);
  if (width > encoded.limits.max_pixels / height)
    fail(ErrorKind::input,
         "{}: {}x{} pixels are more than the limit of {} megapixels; scale the image down",
         encoded.name, width, height, encoded.limits.max_pixels / 1'000'000);
  if (std::max(width, height) > encoded.limits.max_side)
    fail(ErrorKind::input,
         "{}: {}x{} pixels have a side over the limit of {}; cut the image or scale it down",
         encoded.name, width, height, encoded.limits.max_side);
}

void fail_damaged(const EncodedImage& encoded, std::string_view format, std::string_view why) {
  fail(ErrorKind::input, "{}: damaged {} file: {}; remove or replace it", encoded.name, format,
       why);
}

void fail_unsupported(const EncodedImage& encoded, std::string_view what, std::string_view advice) {
  throw UnsupportedImage(fmt::format("{}: {} is not supported; {}", encoded.name, what, advice));
}

void composite_on_white(std::vector<uint8_t>& pixels) {
  const size_t count = pixels.size() / 4;
  for (size_t i = 0; i < count; ++i) {
    const unsigned alpha = pixels[i * 4 + 3];
    for (size_t c = 0; c < 3; ++c)
      pixels[i * 3 + c] =
          static_cast<uint8_t>((pixels[i * 4 + c] * alpha + 255 * (255 - alpha) + 127) / 255);
  }
  pixels.resize(count * 3);
}

}  // namespace graft
