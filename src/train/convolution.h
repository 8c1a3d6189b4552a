// 3×3 convolutions that train, by Winograd's F(4×4, 3×3).
#pragma once

#include <torch/torch.h>

namespace graft {

/// x (N, C, H, W) * weight (O, C, 3, 3) + bias (O) with a border of one zero pixel: (N, O, H, W),
/// with gradients. On a processor, where the maps are large enough to pay, all three products
/// (output, gradient of the input, gradient of the weights) are computed on transformed 4×4 tiles
/// with 36 instead of 144 multiplications each, in memory format channels-last; elsewhere it is
/// torch::conv2d. Differs from exact arithmetic by a few 1e-6 of the largest value.
torch::Tensor convolution(const torch::Tensor& x, const torch::Tensor& weight,
                          const torch::Tensor& bias);

}  // namespace graft
