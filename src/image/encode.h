// Writing pictures.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string_view>
#include <vector>

#include "graft/image.h"

namespace graft {

/// Baseline JPEG, 4:2:0, `quality` 1–100. Throws Error(io) if libjpeg refuses.
std::vector<std::byte> encode_jpeg(const Image& image, int quality);

/// 8-bit RGB PNG, with what wrote it (a "Software" text) where `software` is not empty. Throws
/// Error(io) if libpng refuses.
std::vector<std::byte> encode_png(const Image& image, std::string_view software = {});

/// Whether a file is a PNG that encode_png() made with this `software`.
bool is_png_of(const std::filesystem::path& file, std::string_view software);

}  // namespace graft
