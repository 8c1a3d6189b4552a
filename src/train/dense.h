// Dense layers that train, at the speed of memory.
#pragma once

#include <torch/torch.h>

#include <functional>
#include <unordered_map>

#include "train/kernels.h"

namespace graft {

/// Gradients of large weight matrices that were not computed yet: the optimiser makes them piece by
/// piece, in cache, and uses each up at once, so that they never pass through memory (411 MB for
/// the notebook's first layer, written and read at each step). Filled by backward(); not
/// thread-safe.
class PostponedGradients {
 public:
  /// Takes `count` gradients from `offset` in the weights on.
  using Sink =
      std::function<void(int64_t offset, int64_t count, const float* gradient, training::Runs)>;

  /// Whether the gradient of these weights is here, and not in weight.grad().
  [[nodiscard]] bool has(const torch::Tensor& weight) const;
  /// Computes the gradient and gives all of it to `sink`, on several threads.
  void compute(const torch::Tensor& weight, const Sink& sink) const;
  void clear() { products_.clear(); }

  /// The gradient of `weight` (O, I) is gradientᵀ (O, N) · x (N, I).
  void add(const torch::Tensor& weight, torch::Tensor gradient, torch::Tensor x);

 private:
  struct Product {
    torch::Tensor gradient;
    torch::Tensor x;
  };
  std::unordered_map<const void*, Product> products_;  // by the address of the weights
};

/// x (N, I) · weightᵀ (O, I) + bias (O), with gradients. For large matrices on a processor the
/// product reads the weights once, and where `postponed` is not null their gradient goes there.
/// `postponed` must live until backward() is over.
torch::Tensor dense(const torch::Tensor& x, const torch::Tensor& weight, const torch::Tensor& bias,
                    PostponedGradients* postponed);

}  // namespace graft
