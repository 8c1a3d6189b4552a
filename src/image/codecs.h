// One decoder per format; decode.cpp chooses among them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graft/error.h"
#include "graft/image.h"

namespace graft {

/// A file that is what it should be, of a kind that Graft does not read; any other Error(input) of
/// a decoder means that the file is damaged or no image.
class UnsupportedImage : public Error {
 public:
  explicit UnsupportedImage(const std::string& message) : Error(ErrorKind::input, message) {}
};

/// What a codec needs to know: the bytes, the name for messages, and the limits.
struct EncodedImage {
  std::span<const std::byte> bytes;
  std::string_view name;
  DecodeLimits limits;
};

/// A decoded image as stored, and the orientation (1 to 8, as in EXIF) in which it is to be seen.
struct Decoded {
  Image image;
  int orientation = 1;
};

/// What a file's header says.
struct ImageFacts {
  ImageFormat format = ImageFormat::jpeg;
  int64_t width = 0;  ///< as stored, before the orientation is applied
  int64_t height = 0;
  bool grey = false;      ///< stored as grey values
  bool cmyk = false;      ///< stored in printing colours
  bool animated = false;  ///< more than one frame
  bool deep = false;      ///< 16 bits a channel
};

/// Reads the header alone. Throws Error(input) as decode_image does.
ImageFacts probe_image(std::span<const std::byte> bytes, std::string_view name);
ImageFacts probe_jpeg(const EncodedImage& encoded);
ImageFacts probe_png(const EncodedImage& encoded);
ImageFacts probe_webp(const EncodedImage& encoded);

Decoded decode_jpeg(const EncodedImage& encoded);
Decoded decode_png(const EncodedImage& encoded);
Decoded decode_webp(const EncodedImage& encoded);

/// The largest value of any colour or grey channel of a PNG with 16 bits a channel. Throws
/// Error(input) where its pixels cannot be decoded.
int largest_png_sample(const EncodedImage& encoded);

/// Throws unless the size from a file's header is positive and within the limits.
void check_dimensions(const EncodedImage& encoded, int64_t width, int64_t height);

/// Throws Error(input): "<name>: damaged <format> file: <why>; …".
[[noreturn]] void fail_damaged(const EncodedImage& encoded, std::string_view format,
                               std::string_view why);

/// Throws UnsupportedImage: "<name>: <what> is not supported; <advice>".
[[noreturn]] void fail_unsupported(const EncodedImage& encoded, std::string_view what,
                                   std::string_view advice);

/// RGBA over white to RGB, in place: the vector shrinks to three quarters.
void composite_on_white(std::vector<uint8_t>& pixels);

}  // namespace graft
