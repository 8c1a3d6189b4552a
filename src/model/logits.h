// What a network says of an image, checked.
#pragma once

#include <span>
#include <vector>

namespace graft {

/// Throws Error(input) where a logit is NaN or infinite: a network with weights that are too large
/// or damaged, whose classes have no order. Everything that measures or ranks logits calls it.
void check_logits(std::span<const float> logits);

/// Softmax in double precision. Throws as check_logits() does.
std::vector<double> softmax(std::span<const float> logits);

}  // namespace graft
