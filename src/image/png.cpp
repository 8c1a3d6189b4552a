// PNG by libpng.
#include <png.h>

#include <algorithm>
#include <array>
#include <csetjmp>
#include <cstdio>
#include <cstring>

#include "graft/error.h"
#include "image/codecs.h"
#include "image/encode.h"

namespace graft {
namespace {

struct Source {
  std::span<const std::byte> bytes;
  size_t at = 0;
};

void read_bytes(png_structp png, png_bytep out, size_t count) {
  auto* source = static_cast<Source*>(png_get_io_ptr(png));
  if (source->bytes.size() - source->at < count) png_error(png, "it ends too early");
  std::memcpy(out, source->bytes.data() + source->at, count);
  source->at += count;
}

struct Decoder {
  png_structp png = nullptr;
  png_infop info = nullptr;
  std::array<char, 200> message{};

  Decoder() {
    png = png_create_read_struct(
        PNG_LIBPNG_VER_STRING, this,
        [](png_structp p, png_const_charp text) {
          auto* self = static_cast<Decoder*>(png_get_error_ptr(p));
          std::snprintf(self->message.data(), self->message.size(), "%s", text);
          png_longjmp(p, 1);
        },
        [](png_structp, png_const_charp) {});
    if (png != nullptr) info = png_create_info_struct(png);
  }
  ~Decoder() { png_destroy_read_struct(&png, &info, nullptr); }
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;
};

// The functions that call setjmp hold no object with a destructor.
bool read_header(Decoder& decoder, Source& source, int64_t max_pixels) {
  if (setjmp(png_jmpbuf(decoder.png)) != 0) return false;
  png_set_read_fn(decoder.png, &source, read_bytes);
  // The limit on pixels is checked by the caller, with its own message.
  png_set_user_limits(decoder.png, 0x7FFFFFFF, 0x7FFFFFFF);
  png_set_chunk_malloc_max(decoder.png,
                           static_cast<png_alloc_size_t>(std::max<int64_t>(max_pixels, 8'000'000)));
  png_read_info(decoder.png, decoder.info);
  return true;
}

bool read_pixels(Decoder& decoder, uint8_t* pixels, size_t stride, uint32_t height) {
  if (setjmp(png_jmpbuf(decoder.png)) != 0) return false;
  const int passes = png_set_interlace_handling(decoder.png);
  png_read_update_info(decoder.png, decoder.info);
  if (png_get_rowbytes(decoder.png, decoder.info) != stride)
    png_error(decoder.png, "rows of an unexpected length");
  for (int pass = 0; pass < passes; ++pass)
    for (uint32_t y = 0; y < height; ++y) png_read_row(decoder.png, pixels + stride * y, nullptr);
  png_read_end(decoder.png, decoder.info);
  return true;
}

}  // namespace

namespace {

/// An APNG: the chunk acTL stands before the first IDAT (PNG specification, third edition, 11.3.6).
bool is_animated(std::span<const std::byte> bytes) {
  constexpr size_t kSignature = 8;
  constexpr size_t kFrame = 12;  // length, type and checksum around a chunk's data
  for (size_t at = kSignature; at + kFrame <= bytes.size();) {
    size_t length = 0;
    for (size_t i = 0; i < 4; ++i) length = length << 8 | std::to_integer<size_t>(bytes[at + i]);
    if (std::memcmp(&bytes[at + 4], "acTL", 4) == 0) return true;
    if (std::memcmp(&bytes[at + 4], "IDAT", 4) == 0) return false;
    at += kFrame + length;
  }
  return false;
}

}  // namespace

ImageFacts probe_png(const EncodedImage& encoded) {
  Decoder decoder;
  Source source{encoded.bytes};
  if (decoder.info == nullptr) fail_damaged(encoded, "PNG", "libpng has no memory");
  if (!read_header(decoder, source, encoded.limits.max_pixels))
    fail_damaged(encoded, "PNG", decoder.message.data());
  const bool grey = (png_get_color_type(decoder.png, decoder.info) & PNG_COLOR_MASK_COLOR) == 0;
  return {ImageFormat::png,
          png_get_image_width(decoder.png, decoder.info),
          png_get_image_height(decoder.png, decoder.info),
          grey,
          false,
          is_animated(encoded.bytes)};
}

Decoded decode_png(const EncodedImage& encoded) {
  Decoder decoder;
  Source source{encoded.bytes};
  const auto damaged = [&] { fail_damaged(encoded, "PNG", decoder.message.data()); };
  if (decoder.info == nullptr) fail_damaged(encoded, "PNG", "libpng has no memory");
  if (!read_header(decoder, source, encoded.limits.max_pixels)) damaged();

  const uint32_t width = png_get_image_width(decoder.png, decoder.info);
  const uint32_t height = png_get_image_height(decoder.png, decoder.info);
  check_dimensions(encoded, width, height);

  // Everything becomes 8-bit RGBA: palettes and grey expanded, tRNS turned into alpha, and of 16
  // bits the high byte kept, as Pillow does for RGB.
  png_set_expand(decoder.png);
  png_set_strip_16(decoder.png);
  png_set_gray_to_rgb(decoder.png);
  png_set_add_alpha(decoder.png, 0xFF, PNG_FILLER_AFTER);
  const size_t stride = size_t{4} * width;
  std::vector<uint8_t> rgba(stride * height);
  if (!read_pixels(decoder, rgba.data(), stride, height)) damaged();

  Decoded decoded;
  decoded.image.width = static_cast<int>(width);
  decoded.image.height = static_cast<int>(height);
  composite_on_white(rgba, decoded.image.pixels);
  png_bytep exif = nullptr;
  png_uint_32 exif_size = 0;
  if (png_get_eXIf_1(decoder.png, decoder.info, &exif_size, &exif) != 0 && exif != nullptr) {
    const auto* data = reinterpret_cast<const std::byte*>(exif);
    decoded.exif.assign(data, data + exif_size);
  }
  return decoded;
}

std::vector<std::byte> encode_png(const Image& image) {
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  png.width = static_cast<png_uint_32>(image.width);
  png.height = static_cast<png_uint_32>(image.height);
  png.format = PNG_FORMAT_RGB;
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(png);
  std::vector<std::byte> out(size);
  if (png_image_write_to_memory(&png, out.data(), &size, 0, image.pixels.data(), 0, nullptr) == 0)
    fail(ErrorKind::io, "a picture of {}x{} cannot be written as PNG: {}", image.width,
         image.height, png.message);
  out.resize(size);
  return out;
}

}  // namespace graft
