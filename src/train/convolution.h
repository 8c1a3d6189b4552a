// 3×3 convolutions that train, by Winograd's F(m×m′, 3×3) or in bfloat16.
#pragma once

#include <torch/torch.h>

#include "graft/precision.h"

namespace graft {

/// x (N, C, H, W) * weight (O, C, 3, 3) + bias (O) with a border of one zero pixel: (N, O, H, W),
/// with gradients. On a processor, where the maps are large enough to pay, all three products
/// (output, gradient of the input, gradient of the weights) are computed on transformed tiles of
/// 3, 4 and 6 pixels each way by the engine's product kernel, in memory format channels-last, the
/// same to the bit whatever the number of threads; elsewhere it is
/// torch::conv2d. Differs from exact arithmetic by a few 1e-6 of the largest value. With bf16, from
/// 16 channels on, what the three products multiply is rounded to bfloat16 and summed in float32
/// (rounded_products()).
torch::Tensor convolution(const torch::Tensor& x, const torch::Tensor& weight,
                          const torch::Tensor& bias, Precision precision = Precision::fp32);

}  // namespace graft
