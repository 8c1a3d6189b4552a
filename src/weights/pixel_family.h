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

/// What a file with torchvision's mean and deviation does not say.
inline constexpr const char* kOpenCrop =
    "how images were brought to its input size, for it has torchvision's mean and deviation alone: "
    "`preprocessing` torch (shorter side to 256/224 of it, centre cut out) or torch-stretched does";

/// Whether a family is one with torchvision's mean and deviation.
bool is_torch(PixelFamily family);
/// The same of what a file says of its pixels, up to what float32 rounds off.
bool has_torch_colours(const Preprocessing& pixels);

/// The record of a family that was asked for; not `of_weights`.
Preprocessing preprocessing_of(PixelFamily family);

}  // namespace graft
