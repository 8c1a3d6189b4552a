// Products of layers that train, in bfloat16: operands rounded, sums in float32, on the engine's
// tiles. The weights that an optimiser keeps stay float32. Each sum has one order, so results do
// not depend on the number of threads. No gradients of their own.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <functional>

#include "engine/tile_kernels.h"

namespace graft {

/// Up to 32 rows of a product and some of its columns, in panels of 32.
struct ProductPiece {
  static constexpr int64_t kSide = engine::kTileChannels;

  int64_t row, rows;
  int64_t column, columns;
  const float* sums;  ///< [panel][32 rows][32 columns]

  [[nodiscard]] const float* at(int64_t r, int64_t panel) const {
    return sums + (panel * kSide + r) * kSide;
  }
};

/// a (M, K) · b (K, N), of any strides, piece by piece, from several threads. `b` is packed whole
/// first and `a` on the way, so that the larger one is best `a`.
void for_products(const engine::TileKernels& k, const torch::Tensor& a, const torch::Tensor& b,
                  const std::function<void(const ProductPiece&)>& body);
/// All of it, (M, N).
torch::Tensor tile_product(const engine::TileKernels& k, const torch::Tensor& a,
                           const torch::Tensor& b);

/// 3×3 convolutions with a border of one zero pixel; maps are channels-last.
class TileProducts3x3 {
 public:
  explicit TileProducts3x3(const engine::TileKernels& kernels) : k_(kernels) {}

  /// The convolution of `in` (N, C, H, W) with `taps` (9, C, O), in the order of rows; `bias` may
  /// be null.
  [[nodiscard]] torch::Tensor convolve(const torch::Tensor& in, const torch::Tensor& taps,
                                       const float* bias) const;
  /// The gradient of the weights, (O, C, 3, 3).
  [[nodiscard]] torch::Tensor weight_gradient(const torch::Tensor& in,
                                              const torch::Tensor& gradient) const;

 private:
  const engine::TileKernels& k_;
};

}  // namespace graft
