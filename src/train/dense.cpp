#include "train/dense.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/kernels.h"
#include "train/products.h"

namespace graft {
namespace {

using engine::kMostMR;
using engine::kMostNR;
using torch::Tensor;

// Weights of a matrix from which it is large: 1 MB does not fit the second-level cache.
constexpr int64_t kLarge = 1 << 18U;
// Inputs of a chunk: its panels of 64 images take 128 KB, of the second-level cache.
constexpr int64_t kChunk = 512;

int64_t panels_of(int64_t count, int64_t width) { return (count + width - 1) / width; }

/// The product kernel's register block and the inputs that it keeps together.
struct Sizes {
  int64_t block = engine::kernels().block;
  int64_t mr = engine::kernels().mr;
  int64_t nr = engine::kernels().nr;
};

/// Rows of the output go to threads in whole groups.
template <class Body>
void for_groups(int64_t rows, const Body& body) {
  const int64_t groups = panels_of(rows, engine::kernels().mr);
  at::parallel_for(0, groups, (groups + at::get_num_threads() - 1) / at::get_num_threads(), body);
}

/// y = x · wᵀ + b. x is packed into panels [I][nr images]; each group of rows of w is packed on the
/// way, in the first-level cache.
Tensor product(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  const auto [block, mr, nr] = Sizes();
  const int64_t images = x.size(0);
  const int64_t inputs = x.size(1);
  const int64_t outputs = weight.size(0);
  const int64_t padded = panels_of(inputs, block) * block;
  const int64_t panels = panels_of(images, nr);
  Tensor packed = torch::empty({panels, padded, nr});
  const float* from = x.data_ptr<float>();
  float* to = packed.data_ptr<float>();
  at::parallel_for(0, padded, kChunk, [&](int64_t begin, int64_t end) {
    for (int64_t p = 0; p < panels; ++p)
      for (int64_t k = begin; k < end; ++k)
        for (int64_t n = 0; n < nr; ++n) {
          const int64_t image = p * nr + n;
          to[(p * padded + k) * nr + n] =
              image < images && k < inputs ? from[image * inputs + k] : 0.0F;
        }
  });
  const float* w = weight.data_ptr<float>();
  const float* b = bias.data_ptr<float>();
  Tensor out = torch::empty({images, outputs});
  float* y = out.data_ptr<float>();
  for_groups(outputs, [&](int64_t first_group, int64_t last_group) {
    const int64_t panel = mr * nr;
    // From LibTorch, as the kernels want aligned memory.
    const Tensor sums = torch::empty({(last_group - first_group) * panels * panel});
    alignas(64) float rows[kMostMR * kChunk] = {};
    for (int64_t begin = 0; begin < padded; begin += kChunk) {
      const int64_t real = std::min(kChunk, inputs - begin);
      const int64_t depth = std::min(kChunk, padded - begin);
      for (int64_t group = first_group; group < last_group; ++group) {
        const int64_t valid = std::min(mr, outputs - group * mr);
        for (int64_t r = 0; r < valid; ++r) {
          const float* row = w + (group * mr + r) * inputs + begin;
          int64_t k = 0;
          for (; k + block <= real; k += block)
            std::memcpy(rows + k * mr + r * block, row + k,
                        static_cast<size_t>(block) * sizeof(float));
          if (k < real) {
            float* last = rows + k * mr + r * block;
            std::fill(last, last + block, 0.0F);
            std::copy(row + k, row + real, last);
          }
        }
        float* c = sums.data_ptr<float>() + (group - first_group) * panels * panel;
        for (int64_t p = 0; p < panels; ++p)
          engine::kernels().multiply(rows, to + (p * padded + begin) * nr, c + p * panel,
                                     static_cast<int>(mr), static_cast<int>(nr),
                                     static_cast<size_t>(depth / block), begin > 0, to, 0);
      }
    }
    for (int64_t image = 0; image < images; ++image)
      for (int64_t o = first_group * mr; o < std::min(outputs, last_group * mr); ++o) {
        const int64_t at = (o / mr - first_group) * panels + image / nr;
        y[image * outputs + o] =
            sums.data_ptr<float>()[at * panel + o % mr * nr + image % nr] + b[o];
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
  const auto [block, mr, nr] = Sizes();
  const Product& product = products_.at(weight.data_ptr());
  const int64_t images = product.x.size(0);
  const int64_t inputs = product.x.size(1);
  const int64_t outputs = product.gradient.size(1);
  const int64_t depth = panels_of(images, block) * block;
  // gradientᵀ in groups of mr outputs, [image / block][mr][block]; images that do not exist are
  // zero.
  const int64_t groups = panels_of(outputs, mr);
  Tensor left = torch::zeros({groups, depth * mr});
  const float* g = product.gradient.data_ptr<float>();
  float* a = left.data_ptr<float>();
  for (int64_t n = 0; n < images; ++n)
    for (int64_t o = 0; o < outputs; ++o)
      a[o / mr * depth * mr + n / block * (mr * block) + o % mr * block + n % block] =
          g[n * outputs + o];
  // x in panels of nr inputs, [image][nr].
  const int64_t panels = panels_of(inputs, nr);
  Tensor right = torch::zeros({panels, depth, nr});
  const float* x = product.x.data_ptr<float>();
  float* b = right.data_ptr<float>();
  at::parallel_for(0, panels, 32, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p)
      for (int64_t n = 0; n < images; ++n)
        std::copy_n(x + n * inputs + p * nr, std::min(nr, inputs - p * nr),
                    b + (p * depth + n) * nr);
  });
  const int64_t panels_at_once = kChunk / nr;
  for_groups(outputs, [&](int64_t first_group, int64_t last_group) {
    alignas(64) float products[kChunk * kMostMR];
    for (int64_t begin = 0; begin < panels; begin += panels_at_once) {
      const int64_t end = std::min(begin + panels_at_once, panels);
      const int64_t count = std::min(end * nr, inputs) - begin * nr;
      for (int64_t group = first_group; group < last_group; ++group) {
        for (int64_t p = begin; p < end; ++p)
          engine::kernels().multiply(a + group * depth * mr, b + p * depth * nr,
                                     products + (p - begin) * (mr * nr), static_cast<int>(mr),
                                     static_cast<int>(nr), static_cast<size_t>(depth / block),
                                     false, b, 0);
        for (int64_t r = 0; r < std::min(mr, outputs - group * mr); ++r)
          sink((group * mr + r) * inputs + begin * nr, count, products + r * nr,
               {static_cast<size_t>(nr), static_cast<size_t>(mr * nr)});
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
