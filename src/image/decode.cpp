#include <cstring>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "graft/image.h"
#include "image/codecs.h"
#include "image/metadata.h"

namespace graft {
namespace {

bool starts_with(std::span<const std::byte> bytes, std::string_view magic, size_t at = 0) {
  return bytes.size() >= at + magic.size() &&
         std::memcmp(bytes.data() + at, magic.data(), magic.size()) == 0;
}

struct KnownFile {
  std::string_view magic;
  size_t at;
  std::string_view what;
};

constexpr std::string_view operator""_bytes(const char* text, size_t size) { return {text, size}; }

/// Images of other formats: nothing is wrong with them.
constexpr KnownFile kOtherFormats[] = {
    {"GIF8", 0, "a GIF"},
    {"BM", 0, "a BMP"},
    {"II*\0"_bytes, 0, "a TIFF"},
    {"MM\0*"_bytes, 0, "a TIFF"},
    {"ftypavi", 4, "an AVIF"},
    {"ftyphei", 4, "a HEIC"},
    {"ftyphev", 4, "a HEIC"},
    {"ftypmif1", 4, "a HEIC"},
    {"ftypmsf1", 4, "a HEIC"},
    {"\0\0\0\x0CjP  "_bytes, 0, "a JPEG 2000"},
    {"\xFF\x4F\xFF\x51", 0, "a JPEG 2000"},
    {"\0\0\0\x0CJXL "_bytes, 0, "a JPEG XL"},
    {"\xFF\x0A", 0, "a JPEG XL"},
    {"8BPS", 0, "a Photoshop file"},
    {"\0\0\1\0"_bytes, 0, "an icon"},
};

/// No images at all.
constexpr KnownFile kOtherFiles[] = {
    {"<", 0, "it looks like HTML or XML"},
    {"version https://git-lfs", 0, "it is a Git LFS pointer ('git lfs pull' fetches the file)"},
    {"\0\x05\x16\x07"_bytes, 0, "it is a macOS resource file, not the image itself"},
    {"%PDF", 0, "it is a PDF"},
};

}  // namespace

ImageFormat sniff_format(std::span<const std::byte> bytes, std::string_view name) {
  if (starts_with(bytes, "\xFF\xD8\xFF")) return ImageFormat::jpeg;
  if (starts_with(bytes, "\x89PNG\r\n\x1A\n")) return ImageFormat::png;
  if (starts_with(bytes, "RIFF") && starts_with(bytes, "WEBP", 8)) return ImageFormat::webp;
  for (const KnownFile& known : kOtherFormats)
    if (starts_with(bytes, known.magic, known.at))
      throw UnsupportedImage(fmt::format(
          "{}: not a JPEG, PNG or WebP image: it is {}; convert or remove it", name, known.what));
  std::string_view what = "its first bytes belong to none of these";
  if (bytes.empty()) what = "the file is empty";
  for (const KnownFile& known : kOtherFiles)
    if (starts_with(bytes, known.magic, known.at)) what = known.what;
  fail(ErrorKind::input, "{}: not a JPEG, PNG or WebP image: {}; replace or remove it", name, what);
}

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

Image decode_image(std::span<const std::byte> bytes, std::string_view name,
                   const DecodeLimits& limits) {
  const EncodedImage encoded{bytes, name, limits};
  Decoded decoded;
  switch (sniff_format(bytes, name)) {
    case ImageFormat::jpeg:
      decoded = decode_jpeg(encoded);
      break;
    case ImageFormat::png:
      decoded = decode_png(encoded);
      break;
    case ImageFormat::webp:
      decoded = decode_webp(encoded);
      break;
  }
  return apply_orientation(std::move(decoded.image), decoded.orientation);
}

ImageFacts probe_image(std::span<const std::byte> bytes, std::string_view name) {
  const EncodedImage encoded{bytes, name, {}};
  switch (sniff_format(bytes, name)) {
    case ImageFormat::jpeg:
      return probe_jpeg(encoded);
    case ImageFormat::png:
      return probe_png(encoded);
    case ImageFormat::webp:
      break;
  }
  return probe_webp(encoded);
}

Image load_image(const std::filesystem::path& path, const DecodeLimits& limits) {
  return decode_image(read_file(path), printable(path), limits);
}

}  // namespace graft
