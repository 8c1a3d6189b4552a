#include <libexif/exif-data.h>

#include <cstring>
#include <memory>
#include <utility>

#include "base/file.h"
#include "graft/error.h"
#include "graft/image.h"
#include "image/codecs.h"

namespace graft {
namespace {

bool starts_with(std::span<const std::byte> bytes, std::string_view magic, size_t at = 0) {
  return bytes.size() >= at + magic.size() &&
         std::memcmp(bytes.data() + at, magic.data(), magic.size()) == 0;
}

/// A guess at what else the file is, for the message.
std::string_view describe(std::span<const std::byte> bytes) {
  if (bytes.empty()) return "the file is empty";
  if (starts_with(bytes, "GIF8")) return "it is a GIF";
  if (starts_with(bytes, "BM")) return "it is a BMP";
  if (starts_with(bytes, "II*") || starts_with(bytes, "MM")) return "it is a TIFF";
  if (starts_with(bytes, "ftypavif", 4)) return "it is an AVIF";
  if (starts_with(bytes, "ftyphei", 4) || starts_with(bytes, "ftypmif1", 4)) return "it is a HEIC";
  if (starts_with(bytes, "<")) return "it looks like HTML or XML";
  return "its first bytes belong to none of these";
}

}  // namespace

ImageFormat sniff_format(std::span<const std::byte> bytes, std::string_view name) {
  if (starts_with(bytes, "\xFF\xD8\xFF")) return ImageFormat::jpeg;
  if (starts_with(bytes, "\x89PNG\r\n\x1A\n")) return ImageFormat::png;
  if (starts_with(bytes, "RIFF") && starts_with(bytes, "WEBP", 8)) return ImageFormat::webp;
  fail(ErrorKind::input, "{}: not a JPEG, PNG or WebP picture: {}; convert or remove it", name,
       describe(bytes));
}

void check_dimensions(const EncodedImage& encoded, int64_t width, int64_t height) {
  if (width < 1 || height < 1)
    fail(ErrorKind::input, "{}: the header says {}x{} pixels; remove or replace the file",
         encoded.name, width, height);
  if (width > encoded.limits.max_pixels / height)
    fail(ErrorKind::input,
         "{}: {}x{} pixels are more than the limit of {} megapixels; scale the "
         "picture down",
         encoded.name, width, height, encoded.limits.max_pixels / 1'000'000);
}

void fail_damaged(const EncodedImage& encoded, std::string_view format, std::string_view why) {
  fail(ErrorKind::input, "{}: damaged {} file: {}; remove or replace it", encoded.name, format,
       why);
}

int exif_orientation(std::span<const std::byte> exif) {
  if (exif.empty() || exif.size() > 0xFFFFFF) return 1;
  // libexif wants the "Exif\0\0" that JPEG puts in front of the TIFF block.
  constexpr std::string_view kPrefix("Exif\0\0", 6);
  std::vector<unsigned char> block;
  if (!starts_with(exif, kPrefix)) block.assign(kPrefix.begin(), kPrefix.end());
  const auto* first = reinterpret_cast<const unsigned char*>(exif.data());
  block.insert(block.end(), first, first + exif.size());
  const std::unique_ptr<ExifData, decltype(&exif_data_unref)> data(
      exif_data_new_from_data(block.data(), static_cast<unsigned>(block.size())), exif_data_unref);
  if (!data) return 1;
  const ExifEntry* entry = exif_content_get_entry(data->ifd[EXIF_IFD_0], EXIF_TAG_ORIENTATION);
  if (entry == nullptr || entry->format != EXIF_FORMAT_SHORT || entry->size < 2) return 1;
  const int value = exif_get_short(entry->data, exif_data_get_byte_order(data.get()));
  return value >= 1 && value <= 8 ? value : 1;
}

Image apply_orientation(Image image, int orientation) {
  if (orientation <= 1) return image;
  // EXIF 2.3, tag 0x0112: values from 5 on swap rows and columns.
  const bool swap = orientation >= 5;
  const int width = swap ? image.height : image.width;
  const int height = swap ? image.width : image.height;
  Image out{width, height, std::vector<uint8_t>(image.pixels.size())};
  uint8_t* to = out.pixels.data();
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x, to += 3) {
      int column = swap ? y : x;
      int row = swap ? x : y;
      if (orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8)
        column = image.width - 1 - column;
      if (orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7)
        row = image.height - 1 - row;
      std::memcpy(to, &image.pixels[(static_cast<size_t>(row) * image.width + column) * 3], 3);
    }
  }
  return out;
}

void composite_on_white(std::span<const uint8_t> rgba, std::vector<uint8_t>& rgb) {
  rgb.resize(rgba.size() / 4 * 3);
  for (size_t i = 0; i < rgba.size() / 4; ++i) {
    const unsigned alpha = rgba[i * 4 + 3];
    for (size_t c = 0; c < 3; ++c)
      rgb[i * 3 + c] =
          static_cast<uint8_t>((rgba[i * 4 + c] * alpha + 255 * (255 - alpha) + 127) / 255);
  }
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
  return apply_orientation(std::move(decoded.image), exif_orientation(decoded.exif));
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
