#include "train/products.h"

#include <ATen/Parallel.h>

#include <algorithm>

#include "engine/tile_kernels.h"

namespace graft {

torch::Tensor shared_product(const torch::Tensor& a, const torch::Tensor& b) {
  if (!a.device().is_cpu()) return a.mm(b);
  torch::Tensor out = torch::empty({a.size(0), b.size(1)}, a.options());
  const int64_t along = out.size(0) >= out.size(1) ? 0 : 1;
  const int64_t size = out.size(along);
  if (size == 0) return out;
  const int64_t share = (size + at::get_num_threads() - 1) / at::get_num_threads();
  at::parallel_for(0, size, share, [&](int64_t begin, int64_t end) {
    const torch::NoGradGuard no_gradients;  // a setting of each thread
    torch::Tensor part = out.narrow(along, begin, end - begin);
    torch::mm_out(part, along == 0 ? a.narrow(0, begin, end - begin) : a,
                  along == 1 ? b.narrow(1, begin, end - begin) : b);
  });
  return out;
}

RoundedProducts rounded_products(const torch::Tensor& x) {
  if (!x.device().is_cpu()) return RoundedProducts::torch;
  return engine::tile_kernels(Precision::bf16) != nullptr ? RoundedProducts::tiles
                                                          : RoundedProducts::operands;
}

torch::Tensor torch_rounded_convolution(const torch::Tensor& x, const torch::Tensor& weight,
                                        const torch::Tensor& bias) {
  const torch::Tensor product =
      torch::conv2d(x.to(torch::kBFloat16), weight.to(torch::kBFloat16), {}, /*stride=*/1,
                    /*padding=*/1);
  return product.to(torch::kFloat) + bias.view({1, -1, 1, 1});
}

torch::Tensor torch_rounded_dense(const torch::Tensor& x, const torch::Tensor& weight,
                                  const torch::Tensor& bias) {
  return torch::linear(x.to(torch::kBFloat16), weight.to(torch::kBFloat16)).to(torch::kFloat) +
         bias;
}

torch::Tensor rounded_to_bfloat16(const torch::Tensor& x) {
  return x.to(torch::kBFloat16).to(torch::kFloat);
}

}  // namespace graft
