// Dense layers that train, at the speed of memory.
#pragma once

#include <torch/torch.h>

#include <functional>
#include <unordered_map>

#include "graft/precision.h"
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
  void compute(const torch::Tensor& weight, const Sink& sink) const {
    compute(weight, 0, weight.size(0), sink);
  }
  /// The same of rows (outputs) [first, last) alone.
  void compute(const torch::Tensor& weight, int64_t first, int64_t last, const Sink& sink) const;
  void clear() { products_.clear(); }

  /// The gradient of `weight` (O, I) is gradientᵀ (O, N) · x (N, I).
  void add(const torch::Tensor& weight, torch::Tensor gradient, torch::Tensor x,
           Precision precision);

 private:
  struct Product {
    torch::Tensor gradient;
    torch::Tensor x;
    Precision precision;
    // As the product kernel reads them, once it does.
    mutable torch::Tensor packed_gradient{};
    mutable torch::Tensor packed_x{};
  };
  static void pack(const Product& product);

  std::unordered_map<const void*, Product> products_;  // by the address of the weights
};

/// x (N, I) · weightᵀ (O, I) + bias (O), with gradients. For large matrices on a processor the
/// product reads the weights once, and where `postponed` is not null their gradient goes there.
/// `postponed` must live until backward() is over. With bf16, what products of large matrices
/// multiply is rounded to bfloat16 and summed in float32 (rounded_products()).
torch::Tensor dense(const torch::Tensor& x, const torch::Tensor& weight, const torch::Tensor& bias,
                    PostponedGradients* postponed, Precision precision = Precision::fp32);

}  // namespace graft
