// Orientation from what stands beside an image's pixels. Bounded: nothing is allocated by a size
// that a file claims.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "graft/image.h"

namespace graft {

/// The orientation in the first directory of an EXIF block (a TIFF header, with or without JPEG's
/// "Exif\0\0" before it): 1 to 8, and 1 for a value that is none of them. Nothing where the block
/// has no such tag or cannot be read.
std::optional<int> exif_orientation(std::span<const std::byte> exif);

/// tiff:Orientation of an XMP packet, as an attribute or an element; nothing where there is none.
std::optional<int> xmp_orientation(std::string_view xmp);

/// What counts where both may be given, as in Pillow's exif_transpose(): EXIF, and XMP only where
/// EXIF has no such tag; 1 where neither has.
int choose_orientation(std::optional<int> exif, std::optional<int> xmp);

/// Turns and mirrors an image so that it stands upright.
Image apply_orientation(Image image, int orientation);

/// What the chunks of a PNG say, pixels apart. A damaged chunk counts as absent.
struct PngMetadata {
  int orientation = 1;
  bool animated = false;  ///< an APNG
};
PngMetadata read_png_metadata(std::span<const std::byte> png);

}  // namespace graft
