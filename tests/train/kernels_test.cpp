// The products that train, against LibTorch's own in double precision.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <tuple>
#include <vector>

#include "train/convolution.h"
#include "train/dense.h"
#include "train/products.h"
#include "train/tile_products.h"

namespace graft {
namespace {

/// Largest difference over the largest value.
double difference(const torch::Tensor& got, const torch::Tensor& want) {
  return (got - want).abs().max().item<double>() / want.abs().max().item<double>();
}

torch::Tensor leaf(const torch::Tensor& tensor) {
  return tensor.detach().clone().set_requires_grad(true);
}

/// Sizes that tiles of 3×3, 4×4 and 6×6 cover exactly and not, channels beside the width of
/// vectors, and maps and channels so few that LibTorch does the work.
class Convolutions : public testing::TestWithParam<std::tuple<int, int, int, int, int>> {};

TEST_P(Convolutions, OutputAndGradientsAreExact) {
  const auto [images, inputs, outputs, height, width] = GetParam();
  torch::manual_seed(3);
  const torch::Tensor x = leaf(torch::randn({images, inputs, height, width}));
  const torch::Tensor w = leaf(torch::randn({outputs, inputs, 3, 3}));
  const torch::Tensor b = leaf(torch::randn({outputs}));
  const torch::Tensor up = torch::randn({images, outputs, height, width});
  const torch::Tensor y = convolution(x, w, b);
  y.backward(up);

  const torch::Tensor x2 = leaf(x.to(torch::kDouble));
  const torch::Tensor w2 = leaf(w.to(torch::kDouble));
  const torch::Tensor b2 = leaf(b.to(torch::kDouble));
  const torch::Tensor y2 = torch::conv2d(x2, w2, b2, 1, 1);
  y2.backward(up.to(torch::kDouble));
  // Winograd in float32: a few roundings of values up to thirty times as large as the result (tiles
  // of 6; ten times with 3 and 4).
  constexpr double kTolerance = 3e-5;
  EXPECT_LT(difference(y, y2), kTolerance);
  EXPECT_LT(difference(x.grad(), x2.grad()), kTolerance);
  EXPECT_LT(difference(w.grad(), w2.grad()), kTolerance);
  EXPECT_LT(difference(b.grad(), b2.grad()), kTolerance);
}

INSTANTIATE_TEST_SUITE_P(Sizes, Convolutions,
                         testing::Values(std::tuple{2, 16, 32, 8, 8}, std::tuple{3, 20, 17, 7, 9},
                                         std::tuple{1, 33, 16, 18, 5},
                                         std::tuple{40, 64, 48, 18, 18}, std::tuple{2, 3, 16, 8, 8},
                                         std::tuple{3, 24, 16, 9, 9}, std::tuple{2, 16, 40, 28, 14},
                                         std::tuple{2, 32, 32, 2, 2},
                                         std::tuple{70, 33, 40, 14, 14}));

/// Tiles of bfloat16 that can run here: the emulation of AMX, and the processor's.
std::vector<const engine::TileKernels*> usable_tiles() {
  std::vector<const engine::TileKernels*> usable = {engine::emulated_amx_kernels()};
  for (const engine::TileKernels* k : {engine::amx_kernels(), engine::avx512_bf16_kernels()})
    if (k != nullptr) usable.push_back(k);
  return usable;
}

torch::Tensor rounded(const torch::Tensor& x) { return rounded_to_bfloat16(x).to(torch::kDouble); }

TEST_P(Convolutions, OnTilesAreThoseOfRoundedNumbers) {
  const auto [images, inputs, outputs, height, width] = GetParam();
  torch::manual_seed(3);
  const torch::Tensor x =
      torch::randn({images, inputs, height, width}).contiguous(torch::MemoryFormat::ChannelsLast);
  const torch::Tensor w = torch::randn({outputs, inputs, 3, 3});
  const torch::Tensor b = torch::randn({outputs});
  const torch::Tensor up =
      torch::randn({images, outputs, height, width}).contiguous(torch::MemoryFormat::ChannelsLast);
  const torch::Tensor x2 = leaf(rounded(x));
  const torch::Tensor w2 = leaf(rounded(w));
  const torch::Tensor y2 = torch::conv2d(x2, w2, b.to(torch::kDouble), 1, 1);
  y2.backward(rounded(up));
  const torch::Tensor taps = w.permute({2, 3, 1, 0}).reshape({9, inputs, outputs}).contiguous();
  const torch::Tensor turned =
      w.flip({2, 3}).permute({2, 3, 0, 1}).reshape({9, outputs, inputs}).contiguous();
  constexpr double kTolerance = 1e-5;  // sums in float32
  for (const engine::TileKernels* k : usable_tiles()) {
    const TileProducts3x3 products(*k);
    EXPECT_LT(difference(products.convolve(x, taps, b.data_ptr<float>()), y2), kTolerance)
        << k->name;
    EXPECT_LT(difference(products.convolve(up, turned, nullptr), x2.grad()), kTolerance) << k->name;
    EXPECT_LT(difference(products.weight_gradient(x, up), w2.grad()), kTolerance) << k->name;
  }
}

TEST(TileProducts, AreThoseOfRoundedNumbersWhicheverWayMatricesLie) {
  torch::manual_seed(6);
  for (const auto& [m, n, depth] :
       {std::tuple{1, 1, 1}, {300, 70, 33}, {31, 600, 65}, {520, 33, 1100}, {64, 64, 64}})
    for (const bool left : {false, true})
      for (const bool right : {false, true}) {
        const torch::Tensor a = left ? torch::randn({depth, m}).t() : torch::randn({m, depth});
        const torch::Tensor b = right ? torch::randn({n, depth}).t() : torch::randn({depth, n});
        const torch::Tensor want = rounded(a).mm(rounded(b));
        for (const engine::TileKernels* k : usable_tiles())
          EXPECT_LT(difference(tile_product(*k, a, b), want), 1e-5) << k->name << " " << m;
      }
}

TEST(TileProducts, ThreadsDoNotChangeResults) {
  torch::manual_seed(7);
  const torch::Tensor a = torch::randn({700, 1100});
  const torch::Tensor b = torch::randn({1100, 40});
  const torch::Tensor x =
      torch::randn({40, 40, 7, 9}).contiguous(torch::MemoryFormat::ChannelsLast);
  const torch::Tensor taps = torch::randn({9, 40, 72});
  const engine::TileKernels& k = *engine::emulated_amx_kernels();
  const int before = at::get_num_threads();
  std::vector<torch::Tensor> results[2];
  for (const int threads : {1, 3}) {
    at::set_num_threads(threads);
    const TileProducts3x3 products(k);
    const torch::Tensor y = products.convolve(x, taps, nullptr);
    results[threads / 2] = {tile_product(k, a, b), y, products.weight_gradient(x, y)};
  }
  at::set_num_threads(before);
  for (size_t i = 0; i < results[0].size(); ++i)
    EXPECT_TRUE(torch::equal(results[0][i], results[1][i])) << i;
}

TEST(Convolution, ThreadsDoNotChangeResults) {
  torch::manual_seed(5);
  const torch::Tensor data = torch::randn({50, 40, 14, 9});
  const torch::Tensor weight = torch::randn({72, 40, 3, 3});
  const auto results = [&](int threads) {
    at::set_num_threads(threads);
    const torch::Tensor x = leaf(data);
    const torch::Tensor w = leaf(weight);
    const torch::Tensor y = convolution(x, w, torch::zeros({72}));
    y.square().sum().backward();
    return std::vector{y.detach(), x.grad(), w.grad()};
  };
  const int before = at::get_num_threads();
  const auto one = results(1);
  const auto three = results(3);
  at::set_num_threads(before);
  for (size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(torch::equal(one[i], three[i])) << i;
}

TEST(Convolution, TakesNoGradientOfAnInputThatNeedsNone) {
  const torch::Tensor x = torch::randn({2, 16, 8, 8});
  const torch::Tensor w = leaf(torch::randn({16, 16, 3, 3}));
  convolution(x, w, torch::zeros({16})).sum().backward();
  EXPECT_TRUE(w.grad().defined());
  EXPECT_FALSE(x.grad().defined());
}

/// Adds what was postponed for `weight`: every element comes once.
void add_postponed(const PostponedGradients& postponed, const torch::Tensor& weight,
                   const torch::Tensor& to) {
  postponed.compute(weight, [&](int64_t offset, int64_t count, const float* values,
                                training::Runs runs) {
    for (int64_t i = 0; i < count; ++i) {
      const auto at = static_cast<size_t>(i);
      to.data_ptr<float>()[offset + i] += values[at / runs.width * runs.apart + at % runs.width];
    }
  });
}

/// Images, inputs, outputs: of a large matrix, of one with ragged ends, and of a small one.
class Denses : public testing::TestWithParam<std::tuple<int, int, int>> {
 protected:
  void SetUp() override {
    const auto [images, inputs, outputs] = GetParam();
    torch::manual_seed(4);
    x = leaf(torch::randn({images, inputs}));
    w = leaf(torch::randn({outputs, inputs}));
    b = leaf(torch::randn({outputs}));
    up = torch::randn({images, outputs});
  }
  torch::Tensor x, w, b, up;
};

TEST_P(Denses, OutputAndGradientsAreExact) {
  const torch::Tensor x2 = leaf(x.to(torch::kDouble));
  const torch::Tensor w2 = leaf(w.to(torch::kDouble));
  const torch::Tensor b2 = leaf(b.to(torch::kDouble));
  const torch::Tensor y2 = torch::linear(x2, w2, b2);
  y2.backward(up.to(torch::kDouble));
  constexpr double kTolerance = 2e-6;  // sums of at most 3001 terms in float32

  const torch::Tensor y = dense(x, w, b, nullptr);
  y.backward(up);
  EXPECT_LT(difference(y, y2), kTolerance);
  EXPECT_LT(difference(x.grad(), x2.grad()), kTolerance);
  EXPECT_LT(difference(w.grad(), w2.grad()), kTolerance);
  EXPECT_LT(difference(b.grad(), b2.grad()), kTolerance);

  // Postponed, every element comes once.
  PostponedGradients postponed;
  const torch::Tensor w3 = leaf(w);
  dense(x, w3, b, &postponed).backward(up);
  if (!postponed.has(w3)) return;  // a small matrix
  EXPECT_FALSE(w3.grad().defined());
  const torch::Tensor gradient = torch::zeros_like(w);
  add_postponed(postponed, w3, gradient);
  EXPECT_LT(difference(gradient, w2.grad()), kTolerance);
}

/// By tiles where the processor or GRAFT_TARGET has them, else by rounded operands.
TEST_P(Denses, InBfloat16AreThoseOfRoundedNumbers) {
  PostponedGradients postponed;
  const torch::Tensor y = dense(x, w, b, nullptr, Precision::bf16);
  y.backward(up);
  const torch::Tensor w3 = leaf(w);
  dense(x.detach(), w3, b.detach(), &postponed, Precision::bf16).backward(up);
  const torch::Tensor gradient = postponed.has(w3) ? torch::zeros_like(w) : w3.grad();
  if (postponed.has(w3)) add_postponed(postponed, w3, gradient);

  const bool large = w.numel() >= 1 << 18;
  const auto operand = [&](const torch::Tensor& t) {
    return large ? rounded(t) : t.detach().to(torch::kDouble);
  };
  constexpr double kTolerance = 1e-5;
  const torch::Tensor product = operand(x).mm(operand(w).t());
  EXPECT_LT(difference(y, product + b.detach()), kTolerance);
  EXPECT_LT(difference(x.grad(), operand(up).mm(operand(w))), kTolerance);
  EXPECT_LT(difference(w.grad(), operand(up).t().mm(operand(x))), kTolerance);
  EXPECT_LT(difference(gradient, operand(up).t().mm(operand(x))), kTolerance);
  EXPECT_LT(difference(b.grad(), up.to(torch::kDouble).sum(0)), kTolerance);
  EXPECT_EQ(y.dtype(), torch::kFloat);
}

/// What GPUs run.
TEST(RoundedProducts, OfLibTorchAreNearFloat32) {
  torch::manual_seed(10);
  const auto gradients = [](const auto& product, const std::vector<torch::Tensor>& of) {
    std::vector<torch::Tensor> out;
    for (const torch::Tensor& t : of) out.push_back(leaf(t));
    const torch::Tensor y = product(out[0], out[1], out[2]);
    (y * y.detach().cos()).sum().backward();
    std::vector<torch::Tensor> results{y.detach()};
    for (const torch::Tensor& t : out) results.push_back(t.grad());
    return results;
  };
  const auto compare = [&](const auto& rounded_one, const auto& exact_one,
                           const std::vector<torch::Tensor>& of) {
    const auto got = gradients(rounded_one, of);
    const auto want = gradients(exact_one, of);
    for (size_t i = 0; i < got.size(); ++i) {
      EXPECT_EQ(got[i].dtype(), torch::kFloat);
      EXPECT_LT(difference(got[i], want[i]), 0.1) << i;
    }
  };
  compare(torch_rounded_convolution,
          [](const torch::Tensor& x, const torch::Tensor& w, const torch::Tensor& b) {
            return torch::conv2d(x, w, b, 1, 1);
          },
          {torch::randn({2, 16, 7, 7}), torch::randn({24, 16, 3, 3}) / 12, torch::randn({24})});
  compare(torch_rounded_dense,
          [](const torch::Tensor& x, const torch::Tensor& w, const torch::Tensor& b) {
            return torch::linear(x, w, b);
          },
          {torch::randn({5, 40}), torch::randn({30, 40}) / 6, torch::randn({30})});
}

TEST(Convolution, InBfloat16IsNearFloat32) {
  torch::manual_seed(9);
  for (const auto& [inputs, outputs, side] : {std::tuple{32, 48, 9}, {3, 16, 8}}) {
    const torch::Tensor data = torch::randn({3, inputs, side, side});
    const torch::Tensor weight = torch::randn({outputs, inputs, 3, 3});
    const torch::Tensor up = torch::randn({3, outputs, side, side});
    const auto results = [&](Precision precision) {
      const torch::Tensor x = leaf(data);
      const torch::Tensor w = leaf(weight);
      const torch::Tensor b = leaf(torch::ones({outputs}));
      const torch::Tensor y = convolution(x, w, b, precision);
      y.backward(up);
      return std::vector{y.detach(), x.grad(), w.grad(), b.grad()};
    };
    const auto exact = results(Precision::fp32);
    const auto got = results(Precision::bf16);
    for (size_t i = 0; i < exact.size(); ++i) {
      EXPECT_LT(difference(got[i], exact[i]), 0.02) << i;
      // A gradient of biases is a sum of what comes from above, and few channels stay float32.
      EXPECT_EQ(torch::equal(got[i], exact[i]), i == 3 || inputs < 16) << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, Denses,
                         testing::Values(std::tuple{64, 1024, 512}, std::tuple{37, 3001, 131},
                                         std::tuple{1, 512, 513}, std::tuple{5, 40, 7}));

TEST(Dense, LargeMatricesArePostponed) {
  PostponedGradients postponed;
  const torch::Tensor w = leaf(torch::randn({512, 1024}));
  dense(torch::randn({4, 1024}), w, torch::zeros({512}), &postponed).sum().backward();
  EXPECT_TRUE(postponed.has(w));
  postponed.clear();
  EXPECT_FALSE(postponed.has(w));
}

}  // namespace
}  // namespace graft
