// PNG by libpng.
#include <png.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>

#include "base/fail.h"
#include "graft/image.h"
#include "image/codecs.h"
#include "image/metadata.h"

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
  bool lost_transparency = false;

  Decoder() {
    png = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, on_error, on_warning);
    if (png != nullptr) info = png_create_info_struct(png);
  }
  ~Decoder() { png_destroy_read_struct(&png, &info, nullptr); }
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

 private:
  [[noreturn]] static void on_error(png_structp p, png_const_charp text) {
    auto* self = static_cast<Decoder*>(png_get_error_ptr(p));
    std::snprintf(self->message.data(), self->message.size(), "%s", text);
    png_longjmp(p, 1);
  }
  /// Of what libpng warns of, one thing reaches the pixels: transparency that is left out because
  /// of its checksum.
  static void on_warning(png_structp p, png_const_charp text) {
    if (std::strcmp(text, "tRNS: CRC error") == 0)
      static_cast<Decoder*>(png_get_error_ptr(p))->lost_transparency = true;
  }
};

// The functions that call setjmp hold no object with a destructor.
bool read_header(Decoder& decoder, Source& source) {
  if (setjmp(png_jmpbuf(decoder.png)) != 0) return false;
  png_set_read_fn(decoder.png, &source, read_bytes);
  // The limit on pixels is checked by the caller, with its own message.
  png_set_user_limits(decoder.png, 0x7FFFFFFF, 0x7FFFFFFF);
  // Chunks that do not concern the pixels are passed over: libpng would inflate texts and profiles
  // of any size. read_png_metadata() looks for the orientation.
  constexpr std::string_view kSkipped(
      "bKGD\0cHRM\0eXIf\0gAMA\0hIST\0iCCP\0iTXt\0oFFs\0pCAL\0pHYs\0sBIT\0sCAL\0sPLT\0sRGB\0"
      "tEXt\0tIME\0zTXt\0",
      85);
  png_set_keep_unknown_chunks(decoder.png, PNG_HANDLE_CHUNK_NEVER, nullptr, 0);
  png_set_keep_unknown_chunks(decoder.png, PNG_HANDLE_CHUNK_NEVER,
                              reinterpret_cast<png_const_bytep>(kSkipped.data()),
                              static_cast<int>(kSkipped.size() / 5));
  png_read_info(decoder.png, decoder.info);
  return true;
}

/// Starts on the pixels; false unless a row has the length expected.
bool start_pixels(Decoder& decoder, size_t row_bytes, int& passes) {
  if (setjmp(png_jmpbuf(decoder.png)) != 0) return false;
  passes = png_set_interlace_handling(decoder.png);
  png_read_update_info(decoder.png, decoder.info);
  if (png_get_rowbytes(decoder.png, decoder.info) != row_bytes)
    png_error(decoder.png, "rows of an unexpected length");
  return true;
}

/// With the last row libpng has read and checked the last of the pixels' chunks. What stands after
/// it, if only the end marker, is not looked at.
bool read_row(Decoder& decoder, uint8_t* row) {
  if (setjmp(png_jmpbuf(decoder.png)) != 0) return false;
  png_read_row(decoder.png, row, nullptr);
  return true;
}

[[noreturn]] void fail_decoding(const EncodedImage& encoded, const Decoder& decoder) {
  fail_damaged(encoded, "PNG", decoder.message.data());
}

/// Reads the header, or throws.
void open(const EncodedImage& encoded, Decoder& decoder, Source& source) {
  // The first chunk of what Xcode makes of PNGs for a telephone.
  constexpr size_t kFirstType = 12;
  if (encoded.bytes.size() >= kFirstType + 4 &&
      std::memcmp(&encoded.bytes[kFirstType], "CgBI", 4) == 0)
    fail_unsupported(encoded, "PNG in Apple's own variant (CgBI)",
                     "save it as an ordinary PNG, or remove it");
  if (decoder.info == nullptr) fail(ErrorKind::memory, "{}: no memory for libpng", encoded.name);
  if (!read_header(decoder, source)) fail_decoding(encoded, decoder);
}

}  // namespace

ImageFacts probe_png(const EncodedImage& encoded) {
  Decoder decoder;
  Source source{encoded.bytes};
  open(encoded, decoder, source);
  return {.format = ImageFormat::png,
          .width = png_get_image_width(decoder.png, decoder.info),
          .height = png_get_image_height(decoder.png, decoder.info),
          .grey = (png_get_color_type(decoder.png, decoder.info) & PNG_COLOR_MASK_COLOR) == 0,
          .animated = read_png_metadata(encoded.bytes).animated,
          .deep = png_get_bit_depth(decoder.png, decoder.info) == 16};
}

Decoded decode_png(const EncodedImage& encoded) {
  Decoder decoder;
  Source source{encoded.bytes};
  open(encoded, decoder, source);
  const uint32_t width = png_get_image_width(decoder.png, decoder.info);
  const uint32_t height = png_get_image_height(decoder.png, decoder.info);
  check_dimensions(encoded, width, height);
  if (decoder.lost_transparency) fail_damaged(encoded, "PNG", "tRNS: CRC error");

  // Everything becomes 8-bit RGB or RGBA: palettes and grey expanded, tRNS turned into alpha, and
  // of 16 bits the high byte kept, as Pillow does for RGB.
  png_set_expand(decoder.png);
  png_set_strip_16(decoder.png);
  png_set_gray_to_rgb(decoder.png);
  const bool transparent =
      (png_get_color_type(decoder.png, decoder.info) & PNG_COLOR_MASK_ALPHA) != 0 ||
      png_get_valid(decoder.png, decoder.info, PNG_INFO_tRNS) != 0;
  const size_t stride = size_t{transparent ? 4U : 3U} * width;
  int passes = 0;
  if (!start_pixels(decoder, stride, passes)) fail_decoding(encoded, decoder);
  Decoded decoded;
  decoded.image.width = static_cast<int>(width);
  decoded.image.height = static_cast<int>(height);
  decoded.image.pixels.resize(stride * height);
  for (int pass = 0; pass < passes; ++pass)
    for (uint32_t y = 0; y < height; ++y)
      if (!read_row(decoder, &decoded.image.pixels[stride * y])) fail_decoding(encoded, decoder);
  if (transparent) composite_on_white(decoded.image.pixels);
  decoded.orientation = read_png_metadata(encoded.bytes).orientation;
  return decoded;
}

int largest_png_sample(const EncodedImage& encoded) {
  Decoder decoder;
  Source source{encoded.bytes};
  open(encoded, decoder, source);
  const uint32_t width = png_get_image_width(decoder.png, decoder.info);
  const uint32_t height = png_get_image_height(decoder.png, decoder.info);
  check_dimensions(encoded, width, height);
  const size_t channels = png_get_channels(decoder.png, decoder.info);
  const bool alpha = (png_get_color_type(decoder.png, decoder.info) & PNG_COLOR_MASK_ALPHA) != 0;
  const size_t colours = alpha ? channels - 1 : channels;
  int passes = 0;
  std::vector<uint8_t> row(width * channels * 2);
  if (!start_pixels(decoder, row.size(), passes)) fail_decoding(encoded, decoder);
  int most = 0;
  for (int pass = 0; pass < passes; ++pass)
    for (uint32_t y = 0; y < height; ++y) {
      if (!read_row(decoder, row.data())) fail_decoding(encoded, decoder);
      for (size_t i = 0; i < row.size(); i += 2)
        if (i / 2 % channels < colours) most = std::max(most, row[i] << 8 | row[i + 1]);
    }
  return most;
}

namespace {

// The signature and the first chunk, IHDR, which has a fixed size.
constexpr std::ptrdiff_t kHeaderBytes = 8 + 12 + 13;

/// A tEXt chunk (PNG specification, 11.3.3.2).
std::string software_chunk(std::string_view software) {
  const auto number = [](uint32_t value) {
    std::string out;
    for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(value >> shift & 0xFFU);
    return out;
  };
  std::string data = "tEXtSoftware";
  data += '\0';
  data += software;
  const uLong crc =
      ::crc32(0, reinterpret_cast<const Bytef*>(data.data()), static_cast<uInt>(data.size()));
  return number(static_cast<uint32_t>(data.size() - 4)) + data + number(static_cast<uint32_t>(crc));
}

}  // namespace

std::vector<std::byte> encode_png(const Image& image, std::string_view software) {
  check_image(image);
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  png.width = static_cast<png_uint_32>(image.width);
  png.height = static_cast<png_uint_32>(image.height);
  png.format = PNG_FORMAT_RGB;
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(png);
  std::vector<std::byte> out(size);
  if (png_image_write_to_memory(&png, out.data(), &size, 0, image.pixels.data(), 0, nullptr) == 0)
    fail(ErrorKind::io, "an image of {}x{} cannot be written as PNG: {}", image.width, image.height,
         png.message);
  out.resize(size);
  if (software.empty()) return out;
  const std::string text = software_chunk(software);
  const auto* bytes = reinterpret_cast<const std::byte*>(text.data());
  out.insert(out.begin() + kHeaderBytes, bytes, bytes + text.size());
  return out;
}

bool is_png_of(const std::filesystem::path& file, std::string_view software) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(file, error)) return false;
  const std::string text = software_chunk(software);
  std::string start(kHeaderBytes + text.size(), '\0');
  std::ifstream stream(file, std::ios::binary);
  return stream.read(start.data(), static_cast<std::streamsize>(start.size())) &&
         start.starts_with("\x89PNG\r\n\x1a\n") && start.ends_with(text);
}

}  // namespace graft
