// BatchNorms of another epsilon than the network's.
#pragma once

#include "weights/tensor.h"

namespace graft {

/// A BatchNorm's weight with which it computes at epsilon `to` what it computed at `from`.
Tensor with_epsilon(const Tensor& weight, const Tensor& variance, double from, double to);

}  // namespace graft
