#include "image/metadata.h"

#include <libexif/exif-data.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "base/bytes.h"

namespace graft {
namespace {

constexpr bool is_orientation(int value) { return value >= 1 && value <= 8; }

}  // namespace

std::optional<int> exif_orientation(std::span<const std::byte> exif) {
  // libexif wants the "Exif\0\0" that JPEG puts before the TIFF header, and reads 64 KB.
  constexpr std::string_view kPrefix("Exif\0\0", 6);
  constexpr size_t kMaxSize = 0xFFFF;
  std::vector<unsigned char> block;
  if (!has_magic(exif, kPrefix)) block.assign(kPrefix.begin(), kPrefix.end());
  exif = exif.first(std::min(exif.size(), kMaxSize - block.size()));
  const auto* first = reinterpret_cast<const unsigned char*>(exif.data());
  block.insert(block.end(), first, first + exif.size());
  const std::unique_ptr<ExifData, decltype(&exif_data_unref)> data(
      exif_data_new_from_data(block.data(), static_cast<unsigned>(block.size())), exif_data_unref);
  if (!data) return std::nullopt;
  const ExifEntry* entry = exif_content_get_entry(data->ifd[EXIF_IFD_0], EXIF_TAG_ORIENTATION);
  if (entry == nullptr) return std::nullopt;
  if (entry->format != EXIF_FORMAT_SHORT || entry->size < 2) return 1;
  const int value = exif_get_short(entry->data, exif_data_get_byte_order(data.get()));
  return is_orientation(value) ? value : 1;
}

std::optional<int> xmp_orientation(std::string_view xmp) {
  constexpr std::string_view kName = "tiff:Orientation";
  for (size_t at = xmp.find(kName); at != std::string_view::npos; at = xmp.find(kName, at)) {
    at += kName.size();
    std::string_view rest = xmp.substr(at, 16);
    const auto skip_blanks = [&] {
      rest.remove_prefix(std::min(rest.find_first_not_of(" \t\r\n"), rest.size()));
    };
    skip_blanks();
    if (rest.starts_with('>')) {  // <tiff:Orientation>6</tiff:Orientation>
      rest.remove_prefix(1);
      skip_blanks();
    } else if (rest.starts_with('=')) {  // tiff:Orientation="6"
      rest.remove_prefix(1);
      skip_blanks();
      if (!rest.starts_with('"') && !rest.starts_with('\'')) continue;
      rest.remove_prefix(1);
    } else {
      continue;
    }
    if (rest.size() < 2 || (rest[1] >= '0' && rest[1] <= '9')) continue;
    if (is_orientation(rest[0] - '0')) return rest[0] - '0';
  }
  return std::nullopt;
}

int choose_orientation(std::optional<int> exif, std::optional<int> xmp) {
  return exif ? *exif : xmp.value_or(1);
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

}  // namespace graft
