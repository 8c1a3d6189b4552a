// TIFF by libtiff, of several pages the first.
#include <tiffio.h>

#include <cstring>
#include <memory>

#include "base/fail.h"
#include "image/confined/decoders.h"

namespace graft::confined {
namespace {

struct Memory {
  std::span<const std::byte> bytes;
  uint64_t at = 0;
};

tmsize_t read_memory(thandle_t handle, void* out, tmsize_t size) {
  auto& memory = *static_cast<Memory*>(handle);
  if (size <= 0 || memory.at >= memory.bytes.size()) return 0;
  const size_t count = std::min<size_t>(static_cast<size_t>(size), memory.bytes.size() - memory.at);
  std::memcpy(out, memory.bytes.data() + memory.at, count);
  memory.at += count;
  return static_cast<tmsize_t>(count);
}

tmsize_t write_nothing(thandle_t, void*, tmsize_t) { return 0; }

toff_t seek_memory(thandle_t handle, toff_t offset, int whence) {
  auto& memory = *static_cast<Memory*>(handle);
  if (whence == SEEK_SET) memory.at = offset;
  if (whence == SEEK_CUR) memory.at += offset;
  if (whence == SEEK_END) memory.at = memory.bytes.size() + offset;
  return memory.at;
}

int close_memory(thandle_t) { return 0; }
toff_t size_of_memory(thandle_t handle) { return static_cast<Memory*>(handle)->bytes.size(); }

using Tiff = std::unique_ptr<TIFF, decltype(&TIFFClose)>;

template <typename T>
T tag_of(TIFF* tiff, uint32_t tag, T otherwise) {
  T value{};
  return TIFFGetFieldDefaulted(tiff, tag, &value) != 0 ? value : otherwise;
}

/// Cameras' raw files are TIFFs too, whose first page is a small preview.
bool is_raw(TIFF* tiff) {
  constexpr uint32_t kDngVersion = 50706;
  constexpr uint32_t kReduced = 1;
  uint8_t* version = nullptr;
  uint32_t count = 0;
  if (TIFFFindField(tiff, kDngVersion, TIFF_ANY) != nullptr &&
      TIFFGetField(tiff, kDngVersion, &count, &version) != 0)
    return true;
  uint16_t sub_pages = 0;
  uint64_t* offsets = nullptr;
  const bool has_sub_pages = TIFFGetField(tiff, TIFFTAG_SUBIFD, &sub_pages, &offsets) != 0;
  const bool reduced = (tag_of<uint32_t>(tiff, TIFFTAG_SUBFILETYPE, 0) & kReduced) != 0;
  return (reduced && has_sub_pages) ||
         tag_of<uint16_t>(tiff, TIFFTAG_PHOTOMETRIC, PHOTOMETRIC_RGB) == PHOTOMETRIC_CFA;
}

void read_pixels(const EncodedImage& encoded, TIFF* tiff, const ImageFacts& facts, Decoded& out) {
  char message[1024] = "";
  TIFFRGBAImage image{};
  if (TIFFRGBAImageOK(tiff, message) == 0)
    fail_unsupported(encoded, fmt::format("a TIFF of this kind ({})", message),
                     "convert it to 8 or 16 bits a channel, or remove it");
  if (TIFFRGBAImageBegin(&image, tiff, /*stop_on_error=*/1, message) == 0)
    fail_damaged(encoded, "TIFF", message);
  const std::unique_ptr<TIFFRGBAImage, decltype(&TIFFRGBAImageEnd)> end(&image, TIFFRGBAImageEnd);
  image.req_orientation = image.orientation;  // as stored: Graft turns it
  const auto count = static_cast<size_t>(facts.width) * static_cast<size_t>(facts.height);
  std::vector<uint8_t>& pixels = out.image.pixels;
  pixels.resize(4 * count);
  std::vector<uint32_t> raster(count);
  if (TIFFRGBAImageGet(&image, raster.data(), static_cast<uint32_t>(facts.width),
                       static_cast<uint32_t>(facts.height)) == 0)
    fail_damaged(encoded, "TIFF", "its pixels cannot be decoded");
  for (size_t i = 0; i < count; ++i) {
    pixels[4 * i] = static_cast<uint8_t>(TIFFGetR(raster[i]));
    pixels[4 * i + 1] = static_cast<uint8_t>(TIFFGetG(raster[i]));
    pixels[4 * i + 2] = static_cast<uint8_t>(TIFFGetB(raster[i]));
    pixels[4 * i + 3] = static_cast<uint8_t>(TIFFGetA(raster[i]));
  }
  composite_multiplied_on_white(pixels);
  out.image.width = static_cast<int>(facts.width);
  out.image.height = static_cast<int>(facts.height);
}

}  // namespace

ImageFacts read_tiff(const EncodedImage& encoded, Decoded* out) {
  TIFFSetWarningHandler(nullptr);
  TIFFSetErrorHandler(nullptr);
  Memory memory{encoded.bytes};
  const Tiff tiff(TIFFClientOpen("", "rm", &memory, read_memory, write_nothing, seek_memory,
                                 close_memory, size_of_memory, nullptr, nullptr),
                  TIFFClose);
  if (!tiff) fail_damaged(encoded, "TIFF", "its header cannot be read");
  if (is_raw(tiff.get()))
    fail_unsupported(encoded, "a camera's raw file", "develop it to JPEG, or remove it");
  const auto photometric = tag_of<uint16_t>(tiff.get(), TIFFTAG_PHOTOMETRIC, PHOTOMETRIC_RGB);
  ImageFacts facts{
      .format = ImageFormat::tiff,
      .width = tag_of<uint32_t>(tiff.get(), TIFFTAG_IMAGEWIDTH, 0),
      .height = tag_of<uint32_t>(tiff.get(), TIFFTAG_IMAGELENGTH, 0),
      .grey = photometric == PHOTOMETRIC_MINISBLACK || photometric == PHOTOMETRIC_MINISWHITE,
      .cmyk = photometric == PHOTOMETRIC_SEPARATED,
      .animated = TIFFLastDirectory(tiff.get()) == 0,
      .deep = tag_of<uint16_t>(tiff.get(), TIFFTAG_BITSPERSAMPLE, 1) == 16};
  if (out == nullptr) return facts;
  allow_pixels(encoded, facts.width, facts.height);
  out->orientation = tag_of<uint16_t>(tiff.get(), TIFFTAG_ORIENTATION, 1);
  if (out->orientation < 1 || out->orientation > 8) out->orientation = 1;
  read_pixels(encoded, tiff.get(), facts, *out);
  return facts;
}

}  // namespace graft::confined
