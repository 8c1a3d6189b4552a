#include "engine/fold.h"

#include <cmath>

#include "base/fail.h"

namespace graft::engine {
namespace {

std::span<const float> values_of(const Network& network, size_t index, const TensorMap& tensors,
                                 const std::string& role) {
  for (const TensorSpec& spec : tensor_specs(network, index, index + 1))
    if (spec.name.ends_with(role)) return need_tensor(tensors, spec).values();
  fail(ErrorKind::input, "layer {} has no tensor {}", network.layers[index].name, role);
}

}  // namespace

Affine batchnorm_affine(const Network& network, size_t index, const TensorMap& tensors) {
  const auto gamma = values_of(network, index, tensors, ".weight");
  const auto beta = values_of(network, index, tensors, ".bias");
  const auto mean = values_of(network, index, tensors, ".running_mean");
  const auto variance = values_of(network, index, tensors, ".running_var");
  Affine affine{std::vector<float>(gamma.size()), std::vector<float>(gamma.size())};
  for (size_t c = 0; c < gamma.size(); ++c) {
    const double scale = gamma[c] / std::sqrt(double{variance[c]} + network.layers[index].epsilon);
    affine.scale[c] = static_cast<float>(scale);
    affine.shift[c] = static_cast<float>(beta[c] - mean[c] * scale);
  }
  return affine;
}

bool takes_batchnorm(const Network& network, size_t index, size_t end) {
  return !network.layers[index].relu && index + 1 < end &&
         network.layers[index + 1].kind == LayerKind::batchnorm;
}

FoldedLayer fold_layer(const Network& network, size_t index, size_t end, const TensorMap& tensors) {
  const auto weight = values_of(network, index, tensors, ".weight");
  const auto bias = values_of(network, index, tensors, ".bias");
  FoldedLayer folded{{weight.begin(), weight.end()}, {bias.begin(), bias.end()}};
  folded.relu = network.layers[index].relu;
  if (!takes_batchnorm(network, index, end)) return folded;
  const Affine affine = batchnorm_affine(network, index + 1, tensors);
  const size_t row = folded.weight.size() / folded.bias.size();
  for (size_t o = 0; o < folded.bias.size(); ++o) {
    for (size_t k = 0; k < row; ++k) folded.weight[o * row + k] *= affine.scale[o];
    folded.bias[o] = folded.bias[o] * affine.scale[o] + affine.shift[o];
  }
  folded.relu = network.layers[index + 1].relu;
  return folded;
}

}  // namespace graft::engine
