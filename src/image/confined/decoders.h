// The decoders of graft-read-image: one for each library. They run after confine() alone.
#pragma once

#include "image/codecs.h"

namespace graft::confined {

/// Reads what the header says, and the pixels unless `out` is null. Throws UnsupportedImage, other
/// Error(input), or std::bad_alloc.
ImageFacts read_heif(const EncodedImage& encoded, ImageFormat format, Decoded* out);
ImageFacts read_tiff(const EncodedImage& encoded, Decoded* out);
ImageFacts read_gif(const EncodedImage& encoded, Decoded* out);
ImageFacts read_bmp(const EncodedImage& encoded, Decoded* out);

/// Checks the size and allows as much memory and time as an image of it takes. To be called once
/// the header is known, before pixels are decoded.
void allow_pixels(const EncodedImage& encoded, int64_t width, int64_t height);

/// For libraries that hand out colours multiplied by their alpha: RGBA over white to RGB, in place.
void composite_multiplied_on_white(std::vector<uint8_t>& pixels);

}  // namespace graft::confined
