// Images for people to look at: made to fit, set side by side, with a line of text below.
#pragma once

#include <string>
#include <string_view>

#include "graft/image.h"

namespace graft {

/// The image, made smaller with its aspect ratio kept where a side is longer than `side` pixels.
Image fit_inside(const Image& image, int side);

/// The same, made larger too where both sides are shorter than `least`.
Image fit_between(const Image& image, int least, int most);

/// Two images beside each other, a few pixels apart, on white where one is lower.
Image side_by_side(const Image& left, const Image& right);

/// What of a text the caption's letters can show: ASCII, and letters with marks as letters without
/// them. Empty where something else is in it.
std::string drawable(std::string_view text);

/// The image with a line of drawable text below it, dark on white: in letters as large as the width
/// suits, cut in its middle where it is longer than that.
Image captioned(const Image& image, std::string_view text);

}  // namespace graft
