// WebP by libwebp.
#include <webp/decode.h>
#include <webp/demux.h>

#include <memory>

#include "image/codecs.h"
#include "image/metadata.h"

namespace graft {
namespace {

using Demuxer = std::unique_ptr<WebPDemuxer, decltype(&WebPDemuxDelete)>;

/// The parts of the file, as far as they are there; null where not even its head can be read.
Demuxer open(const EncodedImage& encoded, WebPDemuxState& state) {
  const WebPData webp{reinterpret_cast<const uint8_t*>(encoded.bytes.data()), encoded.bytes.size()};
  return {WebPDemuxPartial(&webp, &state), WebPDemuxDelete};
}

std::span<const std::byte> read_chunk(const WebPDemuxer* demuxer, const char* name) {
  WebPChunkIterator chunk{};
  std::span<const std::byte> bytes;  // of the file, which outlives the iterator
  if (WebPDemuxGetChunk(demuxer, name, 1, &chunk) != 0)
    bytes = {reinterpret_cast<const std::byte*>(chunk.chunk.bytes), chunk.chunk.size};
  WebPDemuxReleaseChunkIterator(&chunk);
  return bytes;
}

int read_orientation(const WebPDemuxer* demuxer) {
  const std::span<const std::byte> xmp = read_chunk(demuxer, "XMP ");
  return choose_orientation(
      exif_orientation(read_chunk(demuxer, "EXIF")),
      xmp_orientation({reinterpret_cast<const char*>(xmp.data()), xmp.size()}));
}

/// The first frame of a file, which of a still one is all.
struct Frame {
  WebPIterator at{};
  explicit Frame(const WebPDemuxer* demuxer) { found = WebPDemuxGetFrame(demuxer, 1, &at) != 0; }
  ~Frame() { WebPDemuxReleaseIterator(&at); }
  Frame(const Frame&) = delete;
  Frame& operator=(const Frame&) = delete;
  bool found = false;
};

}  // namespace

ImageFacts probe_webp(const EncodedImage& encoded) {
  WebPBitstreamFeatures features{};
  if (WebPGetFeatures(reinterpret_cast<const uint8_t*>(encoded.bytes.data()), encoded.bytes.size(),
                      &features) != VP8_STATUS_OK)
    fail_damaged(encoded, "WebP", "its header cannot be read");
  return {.format = ImageFormat::webp,
          .width = features.width,
          .height = features.height,
          .animated = features.has_animation != 0};
}

Decoded decode_webp(const EncodedImage& encoded) {
  const ImageFacts facts = probe_webp(encoded);
  check_dimensions(encoded, facts.width, facts.height);
  WebPDemuxState state = WEBP_DEMUX_PARSE_ERROR;
  const Demuxer demuxer = open(encoded, state);
  if (!demuxer) fail_damaged(encoded, "WebP", "its parts do not fit together");
  const Frame frame(demuxer.get());
  // What stands after the first frame may be missing: other frames, but not the metadata that the
  // header announces.
  const uint32_t flags = WebPDemuxGetI(demuxer.get(), WEBP_FF_FORMAT_FLAGS);
  const bool whole = state == WEBP_DEMUX_DONE || (flags & (EXIF_FLAG | XMP_FLAG)) == 0;
  if (!frame.found || frame.at.complete == 0 || !whole)
    fail_damaged(encoded, "WebP", "it ends too early");

  // An animation has a canvas, on which its first frame may cover a part. It is transparent, hence
  // white: viewers ignore the background that the file may name, and so does Pillow.
  Decoded decoded;
  decoded.image.width = static_cast<int>(facts.width);
  decoded.image.height = static_cast<int>(facts.height);
  const WebPIterator& at = frame.at;
  const bool covers = at.width == facts.width && at.height == facts.height;
  const bool transparent = at.has_alpha != 0 || !covers;
  const size_t stride = size_t{transparent ? 4U : 3U} * static_cast<size_t>(facts.width);
  std::vector<uint8_t>& pixels = decoded.image.pixels;
  pixels.resize(stride * static_cast<size_t>(facts.height));
  if (at.x_offset < 0 || at.y_offset < 0 || at.x_offset + at.width > facts.width ||
      at.y_offset + at.height > facts.height)
    fail_damaged(encoded, "WebP", "its first frame is not within the canvas");
  const size_t first = stride * static_cast<size_t>(at.y_offset) + size_t{4} * at.x_offset;
  const auto decode = transparent ? WebPDecodeRGBAInto : WebPDecodeRGBInto;
  if (decode(at.fragment.bytes, at.fragment.size, &pixels[first], pixels.size() - first,
             static_cast<int>(stride)) == nullptr)
    fail_damaged(encoded, "WebP", "its pixels cannot be decoded");
  if (transparent) composite_on_white(pixels);
  decoded.orientation = read_orientation(demuxer.get());
  return decoded;
}

}  // namespace graft
