// What passes between Graft and graft-read-image, the program that decodes HEIC, AVIF, GIF, TIFF
// and BMP for it (decision 0030): one request and one reply after the other, each a header, then
// as many bytes as it says. Both ends are of one build and one machine.
#pragma once

#include <cstdint>

namespace graft {

/// The descriptor that the program is started with.
inline constexpr int kImageSocket = 3;
/// Of a message: a line.
inline constexpr uint32_t kMostImageText = 1U << 16U;

/// Followed by the name, for messages, and the file's bytes.
struct ImageRequest {
  uint64_t bytes = 0;
  int64_t max_pixels = 0;
  int64_t max_side = 0;
  uint32_t name_bytes = 0;
  uint8_t format = 0;  ///< ImageFormat
  uint8_t pixels = 0;  ///< 0: only what the header says
};

enum class ImageOutcome : uint8_t { facts = 1, pixels, damaged, unsupported, no_memory };

/// Followed by the message, or by 3 · width · height bytes of pixels.
struct ImageReply {
  int64_t width = 0;
  int64_t height = 0;
  uint32_t text_bytes = 0;
  int32_t orientation = 1;
  ImageOutcome outcome = ImageOutcome::damaged;
  uint8_t grey = 0;
  uint8_t cmyk = 0;
  uint8_t animated = 0;
  uint8_t deep = 0;
};

}  // namespace graft
