// What a network says of an image, checked, and of its mirror image.
#pragma once

#include <span>
#include <vector>

namespace graft {

/// Throws Error(input) where a logit is NaN or infinite: a network with weights that are too large
/// or damaged, whose classes have no order. Everything that measures or ranks logits calls it.
void check_logits(std::span<const float> logits);

/// Softmax in double precision. Throws as check_logits() does.
std::vector<double> softmax(std::span<const float> logits);

/// The mirror image of what a network reads, (3, H, W): the same to the bit as that of the flipped
/// image.
void mirror_input(std::span<const float> input, int width, float* out);

/// `logits` become the mean of both.
void average_views(std::span<float> logits, std::span<const float> of_mirrored);

}  // namespace graft
