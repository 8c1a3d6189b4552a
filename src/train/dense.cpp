#include "train/dense.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/kernels.h"
#include "train/products.h"

namespace graft {
namespace {

using engine::kBlock;
using engine::kMR;
using engine::kNR;
using torch::Tensor;

// Weights of a matrix from which it is large: 1 MB does not fit the second-level cache.
constexpr int64_t kLarge = 1 << 18U;
// Inputs of a chunk: its panels of 64 images take 128 KB, of the second-level cache.
constexpr int64_t kChunk = 512;

int64_t panels_of(int64_t count, int64_t width) { return (count + width - 1) / width; }

/// Rows of the output go to threads in whole groups of kMR.
template <class Body>
void for_groups(int64_t rows, const Body& body) {
  const int64_t groups = panels_of(rows, kMR);
  at::parallel_for(0, groups, (groups + at::get_num_threads() - 1) / at::get_num_threads(), body);
}

/// y = x · wᵀ + b. x is packed into panels [I][16 images]; each group of six rows of w is packed on
/// the way, in the first-level cache.
Tensor product(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  const int64_t images = x.size(0);
  const int64_t inputs = x.size(1);
  const int64_t outputs = weight.size(0);
  const int64_t padded = panels_of(inputs, kBlock) * kBlock;
  const int64_t panels = panels_of(images, kNR);
  Tensor packed = torch::empty({panels, padded, kNR});
  const float* from = x.data_ptr<float>();
  float* to = packed.data_ptr<float>();
  at::parallel_for(0, padded, kChunk, [&](int64_t begin, int64_t end) {
    for (int64_t p = 0; p < panels; ++p)
      for (int64_t k = begin; k < end; ++k)
        for (int64_t n = 0; n < kNR; ++n) {
          const int64_t image = p * kNR + n;
          to[(p * padded + k) * kNR + n] =
              image < images && k < inputs ? from[image * inputs + k] : 0.0F;
        }
  });
  const float* w = weight.data_ptr<float>();
  const float* b = bias.data_ptr<float>();
  Tensor out = torch::empty({images, outputs});
  float* y = out.data_ptr<float>();
  for_groups(outputs, [&](int64_t first_group, int64_t last_group) {
    constexpr int64_t kPanel = kMR * kNR;
    // From LibTorch, as the kernels want aligned memory.
    const Tensor sums = torch::empty({(last_group - first_group) * panels * kPanel});
    alignas(64) float rows[kMR * kChunk] = {};
    for (int64_t begin = 0; begin < padded; begin += kChunk) {
      const int64_t real = std::min(kChunk, inputs - begin);
      const int64_t depth = std::min(kChunk, padded - begin);
      for (int64_t group = first_group; group < last_group; ++group) {
        const int64_t valid = std::min<int64_t>(kMR, outputs - group * kMR);
        for (int64_t r = 0; r < valid; ++r) {
          const float* row = w + (group * kMR + r) * inputs + begin;
          int64_t k = 0;
          for (; k + kBlock <= real; k += kBlock)
            std::memcpy(rows + k * kMR + r * kBlock, row + k, kBlock * sizeof(float));
          if (k < real) {
            float* last = rows + k * kMR + r * kBlock;
            std::fill(last, last + kBlock, 0.0F);
            std::copy(row + k, row + real, last);
          }
        }
        float* c = sums.data_ptr<float>() + (group - first_group) * panels * kPanel;
        for (int64_t p = 0; p < panels; ++p)
          engine::kernels().multiply(rows, to + (p * padded + begin) * kNR, c + p * kPanel, kMR,
                                     static_cast<size_t>(depth / kBlock), begin > 0, to, 0);
      }
    }
    for (int64_t image = 0; image < images; ++image)
      for (int64_t o = first_group * kMR; o < std::min(outputs, last_group * kMR); ++o) {
        const int64_t at = (o / kMR - first_group) * panels + image / kNR;
        y[image * outputs + o] =
            sums.data_ptr<float>()[at * kPanel + o % kMR * kNR + image % kNR] + b[o];
      }
  });
  return out;
}

struct Dense : torch::autograd::Function<Dense> {
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& x,
                        const Tensor& weight, const Tensor& bias, int64_t postponed) {
    context->saved_data["postponed"] = postponed;
    const Tensor in = x.contiguous();
    context->save_for_backward({in, weight});
    return product(in, weight, bias);
  }

  static torch::autograd::tensor_list backward(torch::autograd::AutogradContext* context,
                                               torch::autograd::tensor_list gradients) {
    const auto saved = context->get_saved_variables();
    const Tensor gradient = gradients[0].contiguous();
    Tensor of_x, of_weight;
    if (context->needs_input_grad(0)) of_x = shared_product(gradient, saved[1]);
    // A pointer does not fit autograd's values but as a number.
    auto* postponed =
        reinterpret_cast<PostponedGradients*>(context->saved_data["postponed"].toInt());
    if (postponed != nullptr)
      postponed->add(saved[1], gradient, saved[0]);
    else
      of_weight = shared_product(gradient.t(), saved[0]);
    return {of_x, of_weight, gradient.sum(0), Tensor()};
  }
};

}  // namespace

bool PostponedGradients::has(const Tensor& weight) const {
  return products_.count(weight.data_ptr()) != 0;
}

void PostponedGradients::add(const Tensor& weight, Tensor gradient, Tensor x) {
  products_.insert_or_assign(weight.data_ptr(), Product{std::move(gradient), std::move(x)});
}

void PostponedGradients::compute(const Tensor& weight, const Sink& sink) const {
  const Product& product = products_.at(weight.data_ptr());
  const int64_t images = product.x.size(0);
  const int64_t inputs = product.x.size(1);
  const int64_t outputs = product.gradient.size(1);
  const int64_t depth = panels_of(images, kBlock) * kBlock;
  // gradientᵀ in groups of six outputs, [image / 8][6][8]; images that do not exist are zero.
  const int64_t groups = panels_of(outputs, kMR);
  Tensor left = torch::zeros({groups, depth * kMR});
  const float* g = product.gradient.data_ptr<float>();
  float* a = left.data_ptr<float>();
  for (int64_t n = 0; n < images; ++n)
    for (int64_t o = 0; o < outputs; ++o)
      a[o / kMR * depth * kMR + n / kBlock * (kMR * kBlock) + o % kMR * kBlock + n % kBlock] =
          g[n * outputs + o];
  // x in panels of 16 inputs, [image][16].
  const int64_t panels = panels_of(inputs, kNR);
  Tensor right = torch::zeros({panels, depth, kNR});
  const float* x = product.x.data_ptr<float>();
  float* b = right.data_ptr<float>();
  at::parallel_for(0, panels, 32, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p)
      for (int64_t n = 0; n < images; ++n)
        std::copy_n(x + n * inputs + p * kNR, std::min<int64_t>(kNR, inputs - p * kNR),
                    b + (p * depth + n) * kNR);
  });
  constexpr int64_t kPanelsAtOnce = kChunk / kNR;
  for_groups(outputs, [&](int64_t first_group, int64_t last_group) {
    alignas(64) float products[kPanelsAtOnce * kMR * kNR];
    for (int64_t begin = 0; begin < panels; begin += kPanelsAtOnce) {
      const int64_t end = std::min(begin + kPanelsAtOnce, panels);
      const int64_t count = std::min(end * kNR, inputs) - begin * kNR;
      for (int64_t group = first_group; group < last_group; ++group) {
        for (int64_t p = begin; p < end; ++p)
          engine::kernels().multiply(a + group * depth * kMR, b + p * depth * kNR,
                                     products + (p - begin) * (kMR * kNR), kMR,
                                     static_cast<size_t>(depth / kBlock), false, b, 0);
        for (int64_t r = 0; r < std::min<int64_t>(kMR, outputs - group * kMR); ++r)
          sink((group * kMR + r) * inputs + begin * kNR, count, products + r * kNR, kMR * kNR);
      }
    }
  });
}

Tensor dense(const Tensor& x, const Tensor& weight, const Tensor& bias,
             PostponedGradients* postponed) {
  const bool large = weight.numel() >= kLarge && weight.device().is_cpu();
  return large ? Dense::apply(x, weight, bias, reinterpret_cast<int64_t>(postponed))
               : torch::linear(x, weight, bias);
}

}  // namespace graft
