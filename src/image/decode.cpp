#include <utility>

#include "base/file.h"
#include "graft/image.h"
#include "image/codecs.h"
#include "image/image_process.h"
#include "image/metadata.h"

namespace graft {

Image decode_image(std::span<const std::byte> bytes, std::string_view name,
                   const DecodeLimits& limits) {
  const EncodedImage encoded{bytes, name, limits};
  Decoded decoded;
  const ImageFormat format = sniff_format(bytes, name);
  switch (format) {
    case ImageFormat::jpeg:
      decoded = decode_jpeg(encoded);
      break;
    case ImageFormat::png:
      decoded = decode_png(encoded);
      break;
    case ImageFormat::webp:
      decoded = decode_webp(encoded);
      break;
    case ImageFormat::heic:
    case ImageFormat::avif:
    case ImageFormat::gif:
    case ImageFormat::tiff:
    case ImageFormat::bmp:
      decoded = decode_in_process(encoded, format);
      break;
  }
  return apply_orientation(std::move(decoded.image), decoded.orientation);
}

ImageFacts probe_image(std::span<const std::byte> bytes, std::string_view name) {
  const EncodedImage encoded{bytes, name, {}};
  const ImageFormat format = sniff_format(bytes, name);
  switch (format) {
    case ImageFormat::jpeg:
      return probe_jpeg(encoded);
    case ImageFormat::png:
      return probe_png(encoded);
    case ImageFormat::webp:
      return probe_webp(encoded);
    case ImageFormat::heic:
    case ImageFormat::avif:
    case ImageFormat::gif:
    case ImageFormat::tiff:
    case ImageFormat::bmp:
      break;
  }
  return probe_in_process(encoded, format);
}

Image load_image(const std::filesystem::path& path, const DecodeLimits& limits) {
  return decode_image(read_file(path), printable(path), limits);
}

}  // namespace graft
