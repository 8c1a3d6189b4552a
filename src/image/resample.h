// Resampling of a part of the result, for what is cut out anyway.
#pragma once

#include <array>
#include <string_view>

#include "graft/image.h"

namespace graft {

/// The names of all kinds of resampling, in their order, in options and files.
inline constexpr std::array<std::string_view, 4> kResamplingNames = {"nearest", "bilinear",
                                                                     "bilinear-noaa", "bicubic"};

/// Pixels [left, left + width) × [top, top + height) of an image.
struct Part {
  int left = 0;
  int top = 0;
  int width = 0;
  int height = 0;
};

/// The part of resize(image, width, height, filter) alone, to the bit; the rest is not computed.
Image resize_part(const Image& image, int width, int height, const Part& part, Resampling filter);

}  // namespace graft
