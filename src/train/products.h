// Matrix products shared out among the training threads.
#pragma once

#include <torch/torch.h>

namespace graft {

/// a (M, K) · b (K, N), without gradients: each thread makes some rows or columns of the result
/// with the BLAS library, which itself is told to use one thread. (Its own threads and LibTorch's
/// wait for each other by spinning, and halve each other's speed.)
torch::Tensor shared_product(const torch::Tensor& a, const torch::Tensor& b);

}  // namespace graft
