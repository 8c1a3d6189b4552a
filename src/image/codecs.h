// One decoder per format; decode.cpp chooses among them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graft/image.h"

namespace graft {

/// What a codec needs to know: the bytes, the name for messages, and the limits.
struct EncodedImage {
  std::span<const std::byte> bytes;
  std::string_view name;
  DecodeLimits limits;
};

/// A decoded picture and the raw EXIF block that came with it (empty if none).
struct Decoded {
  Image image;
  std::vector<std::byte> exif;
};

/// What a file's header says.
struct ImageFacts {
  ImageFormat format = ImageFormat::jpeg;
  int64_t width = 0;  ///< as stored, before the orientation is applied
  int64_t height = 0;
  bool grey = false;      ///< stored as grey values
  bool cmyk = false;      ///< stored in printing colours
  bool animated = false;  ///< more than one frame
};

/// Reads the header alone. Throws Error(input) as decode_image does.
ImageFacts probe_image(std::span<const std::byte> bytes, std::string_view name);
ImageFacts probe_jpeg(const EncodedImage& encoded);
ImageFacts probe_png(const EncodedImage& encoded);
ImageFacts probe_webp(const EncodedImage& encoded);

Decoded decode_jpeg(const EncodedImage& encoded);
Decoded decode_png(const EncodedImage& encoded);
Decoded decode_webp(const EncodedImage& encoded);

/// Throws unless the size from a file's header is positive and within the limit.
void check_dimensions(const EncodedImage& encoded, int64_t width, int64_t height);

/// Throws Error(input): "<name>: damaged <format> file: <why>; …".
[[noreturn]] void fail_damaged(const EncodedImage& encoded, std::string_view format,
                               std::string_view why);

/// The EXIF orientation, 1 to 8; 1 where there is none or it is not valid.
int exif_orientation(std::span<const std::byte> exif);

/// Turns and mirrors a picture so that it stands upright.
Image apply_orientation(Image image, int orientation);

/// RGBA over white to RGB.
void composite_on_white(std::span<const uint8_t> rgba, std::vector<uint8_t>& rgb);

}  // namespace graft
