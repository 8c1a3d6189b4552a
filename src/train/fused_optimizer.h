// Optimisers that pass once over their memory.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <string>
#include <vector>

#include "graft/recipe.h"
#include "train/dense.h"

namespace graft {

struct OptimizerOptions {
  OptimizerKind kind = OptimizerKind::adam;
  double weight_decay = 0;  ///< adam, sgd: added to the gradient; adamw: decoupled
  double momentum = 0.9;    ///< sgd
  double beta2 = 0.999;     ///< adam, adamw
};

/// An optimiser's state, in the order of the parameters; tensors share memory.
struct Moments {
  std::vector<torch::Tensor> first;
  std::vector<torch::Tensor> second;
};

/// Adam (Kingma and Ba, 2015; β₁ 0.9, ε 1e-8), AdamW (Loshchilov and Hutter, 2019) and
/// SGD with momentum, with PyTorch's formulas. One pass over parameter, gradient and moments, in
/// parallel: LibTorch's C++ Adam makes about ten. Elements do not depend on each other, so the
/// thread count does not change results. Not thread-safe.
class FusedOptimizer {
 public:
  /// `factors`, one for each parameter, multiply the learning rate; empty: 1 for all.
  FusedOptimizer(OptimizerOptions options, std::vector<torch::Tensor> parameters,
                 std::vector<double> factors = {});

  /// Drops gradients, so that backward() hands over its own instead of adding to old ones.
  void zero_grad();
  /// One step at that learning rate, with gradients from the parameters or from `postponed`.
  /// Parameters without gradient stay as they are.
  void step(double learning_rate, const PostponedGradients* postponed = nullptr);

  [[nodiscard]] int64_t steps() const { return steps_; }
  /// To be saved, and filled in again with set_steps().
  [[nodiscard]] Moments moments() const { return {first_, second_}; }
  /// `without_moments`: of the steps, those that its moments know nothing of.
  void set_steps(int64_t steps, int64_t without_moments = 0) {
    steps_ = steps;
    without_moments_ = without_moments;
  }
  [[nodiscard]] int64_t steps_without_moments() const { return without_moments_; }
  /// Scales all gradients so that their common norm is at most `limit`; returns the norm before.
  double clip_gradients(double limit);
  /// The two halves of it, for gradients of which others have a part.
  [[nodiscard]] double squared_norm() const;
  void scale_gradients(double factor);

 private:
  OptimizerOptions options_;
  std::vector<torch::Tensor> parameters_;
  std::vector<double> factors_;
  std::vector<torch::Tensor> first_;   // moments; sgd: momentum buffers
  std::vector<torch::Tensor> second_;  // adam and adamw
  int64_t steps_ = 0;
  int64_t without_moments_ = 0;
};

}  // namespace graft
