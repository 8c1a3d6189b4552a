// Scalar kernels in double precision: slow, plain, and the oracle that everything else is tested
// against. Shares no code with the engine.
#pragma once

#include <vector>

#include "graft/network.h"
#include "weights/tensor.h"

namespace graft::engine {

/// Layers [begin, end) in inference mode for one image; `in` is (C, H, W) before layer `begin`.
std::vector<double> reference_forward(const Network& network, size_t begin, size_t end,
                                      const TensorMap& tensors, const std::vector<double>& in);

}  // namespace graft::engine
