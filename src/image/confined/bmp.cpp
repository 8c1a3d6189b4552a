// BMP by stb_image, which takes what a file lacks for black: that it is complete is checked here.
#include <cstring>
#include <memory>

#include "base/fail.h"
#include "image/confined/decoders.h"

#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_ONLY_BMP
#define STBI_NO_STDIO
#define STBI_NO_THREAD_LOCALS
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wsign-compare"
#include <stb/stb_image.h>
#pragma GCC diagnostic pop

namespace graft::confined {
namespace {

/// Little-endian numbers of the header.
class Header {
 public:
  explicit Header(const EncodedImage& encoded) : encoded_(encoded) {}
  [[nodiscard]] uint32_t number(size_t at, size_t size) const {
    if (encoded_.bytes.size() < at + size) fail_damaged(encoded_, "BMP", "it ends too early");
    uint32_t value = 0;
    for (size_t i = 0; i < size; ++i)
      value |= std::to_integer<uint32_t>(encoded_.bytes[at + i]) << (8 * i);
    return value;
  }
  [[nodiscard]] int64_t signed_number(size_t at) const {
    return static_cast<int32_t>(number(at, 4));
  }

 private:
  const EncodedImage& encoded_;
};

struct Layout {
  int64_t width = 0;
  int64_t height = 0;
  uint32_t bits = 0;
  uint32_t coding = 0;
  uint32_t first = 0;  ///< byte of the pixels
};

Layout read_layout(const EncodedImage& encoded) {
  const Header header(encoded);
  constexpr uint32_t kCoreHeader = 12;
  Layout layout;
  layout.first = header.number(10, 4);
  if (header.number(14, 4) == kCoreHeader) {
    layout.width = header.number(18, 2);
    layout.height = header.number(20, 2);
    layout.bits = header.number(24, 2);
  } else {
    layout.width = header.signed_number(18);
    layout.height = std::abs(header.signed_number(22));  // negative: from the top
    layout.bits = header.number(28, 2);
    layout.coding = header.number(30, 4);
  }
  return layout;
}

}  // namespace

ImageFacts read_bmp(const EncodedImage& encoded, Decoded* out) {
  constexpr uint32_t kRgb = 0;
  constexpr uint32_t kBitFields = 3;
  const Layout layout = read_layout(encoded);
  const ImageFacts facts{
      .format = ImageFormat::bmp, .width = layout.width, .height = layout.height};
  if (out == nullptr) return facts;
  allow_pixels(encoded, facts.width, facts.height);
  if (layout.coding != kRgb && layout.coding != kBitFields)
    fail_unsupported(encoded, "a compressed BMP", "save it again without compression, or as PNG");
  const int64_t row = (layout.width * layout.bits + 31) / 32 * 4;
  if (layout.first > encoded.bytes.size() ||
      row * layout.height > static_cast<int64_t>(encoded.bytes.size() - layout.first))
    fail_damaged(encoded, "BMP", "it ends too early");
  // Four bytes a pixel without masks have no alpha, whatever the fourth holds.
  const int channels = layout.bits == 32 && layout.coding == kBitFields ? 4 : 3;
  int width = 0;
  int height = 0;
  int stored = 0;
  const std::unique_ptr<stbi_uc, decltype(&stbi_image_free)> pixels(
      stbi_load_from_memory(reinterpret_cast<const stbi_uc*>(encoded.bytes.data()),
                            static_cast<int>(encoded.bytes.size()), &width, &height, &stored,
                            channels),
      stbi_image_free);
  if (!pixels) {
    if (std::strcmp(stbi_failure_reason(), "outofmem") == 0) throw std::bad_alloc();
    fail_damaged(encoded, "BMP", stbi_failure_reason());
  }
  if (width != layout.width || height != layout.height)
    fail_damaged(encoded, "BMP", "its pixels are not of the size that it states");
  out->image.width = width;
  out->image.height = height;
  const auto count = static_cast<size_t>(width) * static_cast<size_t>(height);
  out->image.pixels.assign(pixels.get(), pixels.get() + count * static_cast<size_t>(channels));
  if (channels == 4) composite_on_white(out->image.pixels);
  return facts;
}

}  // namespace graft::confined
