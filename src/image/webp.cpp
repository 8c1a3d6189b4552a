// WebP by libwebp.
#include <webp/decode.h>
#include <webp/demux.h>

#include <memory>

#include "image/codecs.h"

namespace graft {
namespace {

std::vector<std::byte> read_exif(const WebPDemuxer* demuxer) {
  std::vector<std::byte> exif;
  WebPChunkIterator chunk{};
  if (WebPDemuxGetChunk(demuxer, "EXIF", 1, &chunk) != 0) {
    const auto* data = reinterpret_cast<const std::byte*>(chunk.chunk.bytes);
    exif.assign(data, data + chunk.chunk.size);
  }
  WebPDemuxReleaseChunkIterator(&chunk);
  return exif;
}

WebPBitstreamFeatures read_features(const EncodedImage& encoded) {
  WebPBitstreamFeatures features{};
  if (WebPGetFeatures(reinterpret_cast<const uint8_t*>(encoded.bytes.data()), encoded.bytes.size(),
                      &features) != VP8_STATUS_OK)
    fail_damaged(encoded, "WebP", "its header cannot be read");
  return features;
}

}  // namespace

ImageFacts probe_webp(const EncodedImage& encoded) {
  const WebPBitstreamFeatures features = read_features(encoded);
  return {ImageFormat::webp,          features.width, features.height, false, false,
          features.has_animation != 0};
}

Decoded decode_webp(const EncodedImage& encoded) {
  const auto* data = reinterpret_cast<const uint8_t*>(encoded.bytes.data());
  const size_t size = encoded.bytes.size();
  const WebPBitstreamFeatures features = read_features(encoded);
  check_dimensions(encoded, features.width, features.height);
  if (features.has_animation != 0)
    fail_damaged(encoded, "WebP", "it is an animation, not a still picture");

  const WebPData webp{data, size};
  const std::unique_ptr<WebPDemuxer, decltype(&WebPDemuxDelete)> demuxer(WebPDemux(&webp),
                                                                         WebPDemuxDelete);
  if (!demuxer) fail_damaged(encoded, "WebP", "it ends too early");

  Decoded decoded;
  decoded.image.width = features.width;
  decoded.image.height = features.height;
  const size_t pixels = static_cast<size_t>(features.width) * features.height;
  if (features.has_alpha != 0) {
    std::vector<uint8_t> rgba(pixels * 4);
    if (WebPDecodeRGBAInto(data, size, rgba.data(), rgba.size(), features.width * 4) == nullptr)
      fail_damaged(encoded, "WebP", "its pixels cannot be decoded");
    composite_on_white(rgba, decoded.image.pixels);
  } else {
    decoded.image.pixels.resize(pixels * 3);
    if (WebPDecodeRGBInto(data, size, decoded.image.pixels.data(), decoded.image.pixels.size(),
                          features.width * 3) == nullptr)
      fail_damaged(encoded, "WebP", "its pixels cannot be decoded");
  }
  decoded.exif = read_exif(demuxer.get());
  return decoded;
}

}  // namespace graft
