// The products that train, against LibTorch's own in double precision.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <tuple>
#include <vector>

#include "train/convolution.h"
#include "train/dense.h"

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

/// Images, inputs, outputs: of a large matrix, of one with ragged ends, and of a small one.
class Denses : public testing::TestWithParam<std::tuple<int, int, int>> {};

TEST_P(Denses, OutputAndGradientsAreExact) {
  const auto [images, inputs, outputs] = GetParam();
  torch::manual_seed(4);
  const torch::Tensor x = leaf(torch::randn({images, inputs}));
  const torch::Tensor w = leaf(torch::randn({outputs, inputs}));
  const torch::Tensor b = leaf(torch::randn({outputs}));
  const torch::Tensor up = torch::randn({images, outputs});

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
  torch::Tensor gradient = torch::zeros_like(w);
  postponed.compute(w3,
                    [&](int64_t offset, int64_t count, const float* values, training::Runs runs) {
                      for (int64_t i = 0; i < count; ++i) {
                        const auto at = static_cast<size_t>(i);
                        gradient.data_ptr<float>()[offset + i] +=
                            values[at / runs.width * runs.apart + at % runs.width];
                      }
                    });
  EXPECT_LT(difference(gradient, w2.grad()), kTolerance);
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
