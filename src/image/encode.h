// Writing pictures.
#pragma once

#include <cstddef>
#include <vector>

#include "graft/image.h"

namespace graft {

/// Baseline JPEG, 4:2:0, `quality` 1–100. Throws Error(io) if libjpeg refuses.
std::vector<std::byte> encode_jpeg(const Image& image, int quality);

/// 8-bit RGB PNG. Throws Error(io) if libpng refuses.
std::vector<std::byte> encode_png(const Image& image);

}  // namespace graft
