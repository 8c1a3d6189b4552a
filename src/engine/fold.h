// BatchNorm as the affine map that it is in inference, and its folding into the layer before.
#pragma once

#include <vector>

#include "graft/network.h"
#include "weights/tensor.h"

namespace graft::engine {

/// y = x · scale + shift for each channel.
struct Affine {
  std::vector<float> scale;
  std::vector<float> shift;
};

/// The affine map of BatchNorm layer `index`.
Affine batchnorm_affine(const Network& network, size_t index, const TensorMap& tensors);

/// Weights and bias of a convolution or dense layer, with the BatchNorm that follows it folded in,
/// and whether a ReLU ends the pair.
struct FoldedLayer {
  std::vector<float> weight;
  std::vector<float> bias;
  bool relu = false;
};

/// True if the BatchNorm behind layer `index` (no ReLU between) is folded into it.
bool takes_batchnorm(const Network& network, size_t index, size_t end);

FoldedLayer fold_layer(const Network& network, size_t index, size_t end, const TensorMap& tensors);

}  // namespace graft::engine
