// The gradient of one logit with regard to a layer's output, without LibTorch.
#pragma once

#include <memory>
#include <vector>

#include "engine/engine.h"
#include "graft/network.h"
#include "weights/tensor.h"

namespace graft::engine {

/// Goes back from the network's last layer to the output of layer `target`, and no further, in
/// inference mode: BatchNorm with its running statistics, dropout as identity. Convolutions go back
/// through the engine's own kernels, their weights flipped both ways and transposed. Not
/// thread-safe.
class InputGradient {
 public:
  /// Keeps what it needs of `tensors`. `options`: of its engines, one for each layer, which had
  /// better share a team. Throws Error(input) where a tensor is missing.
  InputGradient(const Network& network, size_t target, const TensorMap& tensors,
                const EngineOptions& options);
  ~InputGradient();
  InputGradient(InputGradient&&) noexcept;
  InputGradient& operator=(InputGradient&&) noexcept;

  /// Computes the layers above `target` from its output (C, H, W); returns the logits.
  const std::vector<float>& forward(const std::vector<float>& activations);
  /// d logits[output] / d activations of the last forward(), in the shape of the activations.
  std::vector<float> backward(size_t output);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace graft::engine
