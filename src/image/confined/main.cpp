// graft-read-image: decodes images for Graft by libraries that have a history of crashes and take
// long to load, in a process that can do nothing else (decision 0030). Not for people: Graft starts
// it with one descriptor (image/image_message.h).
#include <libheif/heif.h>
#include <unistd.h>

#include <algorithm>
#include <new>
#include <string>

#include "base/socket_bytes.h"
#include "confine/confine.h"
#include "graft/error.h"
#include "image/confined/decoders.h"
#include "image/image_message.h"

namespace graft::confined {
namespace {

// For what is not pixels: the libraries' tables, the stacks of their threads.
constexpr uint64_t kWorkingBytes = uint64_t{96} << 20U;
constexpr uint64_t kBytesAPixel = 16;
constexpr uint64_t kHeaderSeconds = 5;
// The slowest decoders take 0.1 s for a million pixels.
constexpr int64_t kPixelsASecond = 1'000'000;

uint64_t own_bytes = 0;

/// The largest size of an image that a caller can ask for: a file of images that Graft would read.
constexpr uint64_t kMostBytes = uint64_t{1} << 30U;

ImageFacts read_image(const EncodedImage& encoded, ImageFormat format, Decoded* out) {
  switch (format) {
    case ImageFormat::heic:
    case ImageFormat::avif:
      return read_heif(encoded, format, out);
    case ImageFormat::tiff:
      return read_tiff(encoded, out);
    case ImageFormat::gif:
      return read_gif(encoded, out);
    case ImageFormat::bmp:
      return read_bmp(encoded, out);
    default:
      break;
  }
  fail_unsupported(encoded, "this format", "remove the file");
}

template <typename T>
bool send_value(const T& value) {
  return send_bytes(kImageSocket, std::as_bytes(std::span(&value, 1)));
}

bool send_text(ImageOutcome outcome, std::string text) {
  text.resize(std::min<size_t>(text.size(), kMostImageText));
  ImageReply reply;
  reply.outcome = outcome;
  reply.text_bytes = static_cast<uint32_t>(text.size());
  return send_value(reply) && send_bytes(kImageSocket, std::as_bytes(std::span(text)));
}

bool answer(const EncodedImage& encoded, const ImageRequest& request) {
  Decoded decoded;
  ImageFacts facts;
  try {
    facts = read_image(encoded, static_cast<ImageFormat>(request.format),
                       request.pixels != 0 ? &decoded : nullptr);
  } catch (const UnsupportedImage& error) {
    return send_text(ImageOutcome::unsupported, error.what());
  } catch (const Error& error) {
    return send_text(ImageOutcome::damaged, error.what());
  }
  ImageReply reply;
  reply.outcome = request.pixels != 0 ? ImageOutcome::pixels : ImageOutcome::facts;
  reply.width = request.pixels != 0 ? decoded.image.width : facts.width;
  reply.height = request.pixels != 0 ? decoded.image.height : facts.height;
  reply.orientation = decoded.orientation;
  reply.grey = static_cast<uint8_t>(facts.grey);
  reply.cmyk = static_cast<uint8_t>(facts.cmyk);
  reply.animated = static_cast<uint8_t>(facts.animated);
  reply.deep = static_cast<uint8_t>(facts.deep);
  return send_value(reply) &&
         send_bytes(kImageSocket, std::as_bytes(std::span(decoded.image.pixels)));
}

/// Answers one request after the other until Graft has closed the socket.
void serve() {
  // Loads its plugins, which would be too late afterwards.
  if (heif_init(nullptr).code != heif_error_Ok) return;
  own_bytes = address_space();
  confine({.socket = kImageSocket, .threads = true, .ends_with_parent = false});
  ImageRequest request;
  while (receive_bytes(kImageSocket, std::as_writable_bytes(std::span(&request, 1)))) {
    if (request.bytes > kMostBytes || request.name_bytes > kMostImageText) return;
    limit_memory(own_bytes + 2 * request.bytes + kWorkingBytes);
    limit_seconds(kHeaderSeconds);
    try {
      std::string name(request.name_bytes, '\0');
      std::vector<std::byte> bytes(request.bytes);
      if (!receive_bytes(kImageSocket, std::as_writable_bytes(std::span(name))) ||
          !receive_bytes(kImageSocket, bytes))
        return;
      if (!answer({bytes, name, {request.max_pixels, request.max_side}}, request)) return;
    } catch (const std::bad_alloc&) {
      // What a library left behind is not known.
      send_text(ImageOutcome::no_memory, "");
      return;
    }
  }
}

}  // namespace

void allow_pixels(const EncodedImage& encoded, int64_t width, int64_t height) {
  check_dimensions(encoded, width, height);
  const int64_t pixels = width * height;
  limit_memory(own_bytes + 2 * encoded.bytes.size() + kWorkingBytes +
               kBytesAPixel * static_cast<uint64_t>(pixels));
  limit_seconds(kHeaderSeconds + static_cast<uint64_t>(pixels / kPixelsASecond));
}

void composite_multiplied_on_white(std::vector<uint8_t>& pixels) {
  const size_t count = pixels.size() / 4;
  for (size_t i = 0; i < count; ++i) {
    const int missing = 255 - pixels[i * 4 + 3];
    for (size_t c = 0; c < 3; ++c)
      pixels[i * 3 + c] = static_cast<uint8_t>(std::min(255, pixels[i * 4 + c] + missing));
  }
  pixels.resize(count * 3);
}

}  // namespace graft::confined

int main() {
  graft::confined::serve();
  // Not exit(): after a damaged file the libraries' own clean-up may crash.
  ::_exit(0);
}
