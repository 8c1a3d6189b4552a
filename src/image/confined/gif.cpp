// GIF by giflib, of an animation the first frame.
#include <gif_lib.h>

#include <array>
#include <cstring>
#include <memory>

#include "base/fail.h"
#include "image/confined/decoders.h"

namespace graft::confined {
namespace {

struct CloseGif {
  void operator()(GifFileType* gif) const { DGifCloseFile(gif, nullptr); }
};
using Gif = std::unique_ptr<GifFileType, CloseGif>;

int read_memory(GifFileType* gif, GifByteType* out, int size) {
  auto& left = *static_cast<std::span<const std::byte>*>(gif->UserData);
  const size_t count = std::min<size_t>(static_cast<size_t>(std::max(size, 0)), left.size());
  if (count > 0) std::memcpy(out, left.data(), count);
  left = left.subspan(count);
  return static_cast<int>(count);
}

class Reader {
 public:
  explicit Reader(const EncodedImage& encoded) : encoded_(encoded), left_(encoded.bytes) {
    int error = 0;
    gif_.reset(DGifOpen(&left_, read_memory, &error));
    if (!gif_) fail("its header cannot be read");
  }

  [[nodiscard]] ImageFacts facts() const {
    return {.format = ImageFormat::gif, .width = gif_->SWidth, .height = gif_->SHeight};
  }

  /// Up to the first frame's own header. Browsers show a canvas as large as that where the file
  /// states none.
  void find_frame() {
    for (GifRecordType kind = UNDEFINED_RECORD_TYPE;;) {
      if (DGifGetRecordType(gif_.get(), &kind) == GIF_ERROR) fail("it ends before its first frame");
      if (kind == EXTENSION_RECORD_TYPE) {
        read_extension();
      } else if (kind == IMAGE_DESC_RECORD_TYPE) {
        if (DGifGetImageDesc(gif_.get()) == GIF_ERROR) fail("its first frame cannot be read");
        return;
      } else {
        fail("it has no frame");
      }
    }
  }

  /// The frame on a transparent, hence white canvas.
  void decode(Decoded& out) {
    const GifImageDesc& frame = gif_->Image;
    const ColorMapObject* map = frame.ColorMap != nullptr ? frame.ColorMap : gif_->SColorMap;
    if (map == nullptr) fail("it has no colours");
    if (frame.Left < 0 || frame.Top < 0 || frame.Width < 1 || frame.Height < 1 ||
        frame.Left + frame.Width > gif_->SWidth || frame.Top + frame.Height > gif_->SHeight)
      fail("its first frame is not within the canvas");
    out.image.width = gif_->SWidth;
    out.image.height = gif_->SHeight;
    out.image.pixels.assign(
        size_t{3} * static_cast<size_t>(gif_->SWidth) * static_cast<size_t>(gif_->SHeight), 255);
    std::vector<GifPixelType> line(static_cast<size_t>(frame.Width));
    struct Pass {
      int first;
      int step;
    };
    constexpr std::array<Pass, 4> kInterlaced = {{{0, 8}, {4, 8}, {2, 4}, {1, 2}}};
    constexpr std::array<Pass, 1> kPlain = {{{0, 1}}};
    const std::span<const Pass> passes =
        frame.Interlace ? std::span<const Pass>(kInterlaced) : std::span<const Pass>(kPlain);
    for (const Pass& pass : passes)
      for (int y = pass.first; y < frame.Height; y += pass.step) {
        if (DGifGetLine(gif_.get(), line.data(), frame.Width) == GIF_ERROR)
          fail("its pixels cannot be decoded");
        draw(line, *map, y, out.image);
      }
  }

  /// Whether another frame follows the one that was decoded.
  bool has_more() {
    for (GifRecordType kind = UNDEFINED_RECORD_TYPE;;) {
      if (DGifGetRecordType(gif_.get(), &kind) == GIF_ERROR) return false;
      if (kind == IMAGE_DESC_RECORD_TYPE) return true;
      if (kind != EXTENSION_RECORD_TYPE) return false;
      GifByteType* bytes = nullptr;
      int code = 0;
      if (DGifGetExtension(gif_.get(), &code, &bytes) == GIF_ERROR) return false;
      while (bytes != nullptr)
        if (DGifGetExtensionNext(gif_.get(), &bytes) == GIF_ERROR) return false;
    }
  }

  void skip_pixels() {
    int size = 0;
    GifByteType* block = nullptr;
    if (DGifGetCode(gif_.get(), &size, &block) == GIF_ERROR) return;
    while (block != nullptr)
      if (DGifGetCodeNext(gif_.get(), &block) == GIF_ERROR) return;
  }

 private:
  [[noreturn]] void fail(std::string_view why) const { fail_damaged(encoded_, "GIF", why); }

  void read_extension() {
    GifByteType* bytes = nullptr;
    int code = 0;
    if (DGifGetExtension(gif_.get(), &code, &bytes) == GIF_ERROR) fail("it ends too early");
    GraphicsControlBlock control{};
    if (code == GRAPHICS_EXT_FUNC_CODE && bytes != nullptr && bytes[0] == 4 &&
        DGifExtensionToGCB(4, bytes + 1, &control) != GIF_ERROR)
      transparent_ = control.TransparentColor;
    while (bytes != nullptr)
      if (DGifGetExtensionNext(gif_.get(), &bytes) == GIF_ERROR) fail("it ends too early");
  }

  void draw(const std::vector<GifPixelType>& line, const ColorMapObject& map, int y,
            Image& image) const {
    const GifImageDesc& frame = gif_->Image;
    uint8_t* at = &image.pixels[size_t{3} * (static_cast<size_t>(frame.Top + y) *
                                                 static_cast<size_t>(image.width) +
                                             static_cast<size_t>(frame.Left))];
    for (const GifPixelType value : line) {
      if (value >= map.ColorCount) fail("a pixel has a colour that it does not define");
      if (value != transparent_) {
        const GifColorType& colour = map.Colors[value];
        at[0] = colour.Red, at[1] = colour.Green, at[2] = colour.Blue;
      }
      at += 3;
    }
  }

  const EncodedImage& encoded_;
  std::span<const std::byte> left_;
  Gif gif_;
  int transparent_ = NO_TRANSPARENT_COLOR;
};

}  // namespace

ImageFacts read_gif(const EncodedImage& encoded, Decoded* out) {
  Reader reader(encoded);
  ImageFacts facts = reader.facts();
  if (out != nullptr) allow_pixels(encoded, facts.width, facts.height);
  reader.find_frame();
  if (out != nullptr) {
    reader.decode(*out);
    return facts;
  }
  reader.skip_pixels();
  facts.animated = reader.has_more();
  return facts;
}

}  // namespace graft::confined
