// How pixels are prepared for weights whose file does not say it, as a user names it.
#pragma once

#include "graft/image.h"
#include "graft/recipe.h"

namespace graft {

/// What messages say can be asked for.
inline constexpr const char* kPixelFamilies =
    "keras (vgg16.preprocess_input), torch (its mean and deviation, centre crop), torch-stretched "
    "(without the crop), unit (pixels / 255), symmetric (pixels / 127.5 - 1) or raw (pixels as "
    "they are)";

/// The record of a family that was asked for; not `of_weights`.
Preprocessing preprocessing_of(PixelFamily family);

}  // namespace graft
