#include "train/dense.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/kernels.h"
#include "train/products.h"
#include "train/tile_products.h"

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

/// The same on tiles.
Tensor tile_dense(const engine::TileKernels& k, const Tensor& x, const Tensor& weight,
                  const Tensor& bias) {
  const int64_t outputs = weight.size(0);
  Tensor out = torch::empty({x.size(0), outputs});
  float* const y = out.data_ptr<float>();
  const float* const b = bias.data_ptr<float>();
  for_products(k, weight, x.t(), [&](const ProductPiece& piece) {
    for (int64_t n = 0; n < piece.columns; ++n)
      for (int64_t r = 0; r < piece.rows; ++r)
        y[(piece.column + n) * outputs + piece.row + r] =
            piece.at(r, n / ProductPiece::kSide)[n % ProductPiece::kSide] + b[piece.row + r];
  });
  return out;
}

/// Tiles that products of this precision are computed on; null: in float32, as is where operands
/// are rounded first.
const engine::TileKernels* tiles_of(Precision precision) {
  return precision == Precision::bf16 ? engine::tile_kernels(precision) : nullptr;
}

struct Dense : torch::autograd::Function<Dense> {
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& x,
                        const Tensor& weight, const Tensor& bias, int64_t postponed,
                        Precision precision) {
    const engine::TileKernels* tiles = tiles_of(precision);
    const bool rounds = precision == Precision::bf16 && tiles == nullptr;
    context->saved_data["postponed"] = postponed;
    context->saved_data["precision"] = static_cast<int64_t>(precision);
    const Tensor in = rounds ? rounded_to_bfloat16(x.contiguous()) : x.contiguous();
    context->save_for_backward({in, weight});
    if (tiles != nullptr) return tile_dense(*tiles, in, weight, bias);
    return product(in, rounds ? rounded_to_bfloat16(weight) : weight, bias);
  }

  static torch::autograd::tensor_list backward(torch::autograd::AutogradContext* context,
                                               torch::autograd::tensor_list gradients) {
    const auto saved = context->get_saved_variables();
    const auto precision = static_cast<Precision>(context->saved_data["precision"].toInt());
    const engine::TileKernels* tiles = tiles_of(precision);
    const bool rounds = precision == Precision::bf16 && tiles == nullptr;
    const Tensor exact = gradients[0].contiguous();
    const Tensor gradient = rounds ? rounded_to_bfloat16(exact) : exact;
    Tensor of_x, of_weight;
    if (context->needs_input_grad(0)) {
      const Tensor weight = rounds ? rounded_to_bfloat16(saved[1]) : saved[1];
      of_x = tiles != nullptr ? tile_product(*tiles, weight.t(), gradient.t()).t()
                              : shared_product(gradient, weight);
    }
    // A pointer does not fit autograd's values but as a number.
    auto* postponed =
        reinterpret_cast<PostponedGradients*>(context->saved_data["postponed"].toInt());
    if (postponed != nullptr)
      postponed->add(saved[1], gradient, saved[0], precision);
    else
      of_weight = tiles != nullptr ? tile_product(*tiles, gradient.t(), saved[0])
                                   : shared_product(gradient.t(), saved[0]);
    return {of_x, of_weight, exact.sum(0), Tensor(), Tensor()};
  }
};

}  // namespace

bool PostponedGradients::has(const Tensor& weight) const {
  return products_.count(weight.data_ptr()) != 0;
}

void PostponedGradients::add(const Tensor& weight, Tensor gradient, Tensor x, Precision precision) {
  products_.insert_or_assign(weight.data_ptr(),
                             Product{std::move(gradient), std::move(x), precision});
}

void PostponedGradients::pack(const Product& product) {
  const auto [block, mr, nr] = Sizes();
  const int64_t images = product.x.size(0);
  const int64_t inputs = product.x.size(1);
  const int64_t outputs = product.gradient.size(1);
  const int64_t depth = panels_of(images, block) * block;
  // gradientᵀ in groups of mr outputs, [image / block][mr][block]; images that do not exist are
  // zero.
  product.packed_gradient = torch::zeros({panels_of(outputs, mr), depth * mr});
  const float* g = product.gradient.data_ptr<float>();
  float* a = product.packed_gradient.data_ptr<float>();
  for (int64_t n = 0; n < images; ++n)
    for (int64_t o = 0; o < outputs; ++o)
      a[o / mr * depth * mr + n / block * (mr * block) + o % mr * block + n % block] =
          g[n * outputs + o];
  // x in panels of nr inputs, [image][nr].
  const int64_t panels = panels_of(inputs, nr);
  product.packed_x = torch::zeros({panels, depth, nr});
  const float* x = product.x.data_ptr<float>();
  float* b = product.packed_x.data_ptr<float>();
  at::parallel_for(0, panels, 32, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p)
      for (int64_t n = 0; n < images; ++n)
        std::copy_n(x + n * inputs + p * nr, std::min(nr, inputs - p * nr),
                    b + (p * depth + n) * nr);
  });
}

void PostponedGradients::compute(const Tensor& weight, int64_t first, int64_t last,
                                 const Sink& sink) const {
  const Product& product = products_.at(weight.data_ptr());
  const int64_t inputs = product.x.size(1);
  if (const engine::TileKernels* tiles = tiles_of(product.precision)) {
    constexpr auto kSide = static_cast<size_t>(ProductPiece::kSide);
    for_products(*tiles, product.gradient.t().narrow(0, first, last - first), product.x,
                 [&](const ProductPiece& piece) {
                   for (int64_t r = 0; r < piece.rows; ++r)
                     sink((first + piece.row + r) * inputs + piece.column, piece.columns,
                          piece.at(r, 0), {kSide, kSide * kSide});
                 });
    return;
  }
  if (!product.packed_x.defined()) pack(product);
  const auto [block, mr, nr] = Sizes();
  const int64_t depth = product.packed_x.size(1);
  const int64_t panels = product.packed_x.size(0);
  const float* a = product.packed_gradient.data_ptr<float>();
  const float* b = product.packed_x.data_ptr<float>();
  const int64_t panels_at_once = kChunk / nr;
  const int64_t skipped = first / mr;  // whole groups
  for_groups(last - skipped * mr, [&](int64_t first_group, int64_t last_group) {
    alignas(64) float products[kChunk * kMostMR];
    for (int64_t begin = 0; begin < panels; begin += panels_at_once) {
      const int64_t end = std::min(begin + panels_at_once, panels);
      const int64_t count = std::min(end * nr, inputs) - begin * nr;
      for (int64_t group = skipped + first_group; group < skipped + last_group; ++group) {
        for (int64_t p = begin; p < end; ++p)
          engine::kernels().multiply(a + group * depth * mr, b + p * depth * nr,
                                     products + (p - begin) * (mr * nr), static_cast<int>(mr),
                                     static_cast<int>(nr), static_cast<size_t>(depth / block),
                                     false, b, 0);
        for (int64_t row = std::max(first, group * mr); row < std::min(last, (group + 1) * mr);
             ++row)
          sink(row * inputs + begin * nr, count, products + (row - group * mr) * nr,
               {static_cast<size_t>(nr), static_cast<size_t>(mr * nr)});
      }
    }
  });
}

Tensor dense(const Tensor& x, const Tensor& weight, const Tensor& bias,
             PostponedGradients* postponed, Precision precision) {
  const bool large = weight.numel() >= kLarge;
  if (large && precision == Precision::bf16 && rounded_products(x) == RoundedProducts::torch)
    return torch_rounded_dense(x, weight, bias);
  return large && weight.device().is_cpu()
             ? Dense::apply(x, weight, bias, reinterpret_cast<int64_t>(postponed), precision)
             : torch::linear(x, weight, bias);
}

}  // namespace graft
