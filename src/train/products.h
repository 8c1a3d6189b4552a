// Matrix products shared out among the training threads.
#pragma once

#include <torch/torch.h>

namespace graft {

/// a (M, K) · b (K, N), without gradients: each thread makes some rows or columns of the result
/// with the BLAS library, which itself is told to use one thread. (Its own threads and LibTorch's
/// wait for each other by spinning, and halve each other's speed.)
torch::Tensor shared_product(const torch::Tensor& a, const torch::Tensor& b);

/// How products of numbers that are rounded to bfloat16 are computed.
enum class RoundedProducts {
  tiles,     ///< on the processor's tiles, or emulated ones
  operands,  ///< operands are rounded, and multiplied in float32: see engine::rounds_operands()
  torch,     ///< by LibTorch, on a GPU
};
/// By where `x` lies.
RoundedProducts rounded_products(const torch::Tensor& x);
/// Of LibTorch, with gradients: results are rounded too, biases are not. On a processor without
/// bfloat16 it sums in bfloat16.
torch::Tensor torch_rounded_convolution(const torch::Tensor& x, const torch::Tensor& weight,
                                        const torch::Tensor& bias);
torch::Tensor torch_rounded_dense(const torch::Tensor& x, const torch::Tensor& weight,
                                  const torch::Tensor& bias);
/// float32 numbers of 8 bits of significand.
torch::Tensor rounded_to_bfloat16(const torch::Tensor& x);

}  // namespace graft
