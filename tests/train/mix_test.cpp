// MixUp, CutMix, and the suffix's averages and rates.
#include "train/mix.h"

#include <cmath>

#include "support.h"
#include "train/suffix.h"

namespace graft {
namespace {

TEST(Mix, BetaHasItsMeanAndVariance) {
  for (const double a : {0.2, 1.0, 4.0}) {
    Random random(1);
    constexpr int kDraws = 20'000;
    double sum = 0;
    double squares = 0;
    for (int i = 0; i < kDraws; ++i) {
      const double x = draw_beta(random, a);
      ASSERT_TRUE(x >= 0 && x <= 1);
      sum += x;
      squares += x * x;
    }
    const double mean = sum / kDraws;
    // Five standard errors, of at most 0.5 / √draws.
    EXPECT_NEAR(mean, 0.5, 0.018);
    EXPECT_NEAR(squares / kDraws - mean * mean, 1 / (4 * (2 * a + 1)), 0.01);
  }
}

TEST(Mix, MixupMixesWithThePartner) {
  Random random(2);
  const torch::Tensor x = torch::arange(12, torch::kFloat).view({4, 3});
  torch::Tensor mixed = x.clone();
  const Mix mix = mixup(mixed, 0.5, random);
  EXPECT_EQ(std::get<0>(mix.partner.sort()).equal(torch::arange(4)), true);
  EXPECT_LT((mixed - (x * mix.share + x.index_select(0, mix.partner) * (1 - mix.share)))
                .abs()
                .max()
                .item<float>(),
            1e-6);
}

TEST(Mix, CutmixPastesARectangleOfItsShare) {
  Random random(3);
  const torch::Tensor x =
      torch::arange(4, torch::kFloat).view({4, 1, 1, 1}).expand({4, 2, 9, 7}).contiguous();
  bool pasted = false;
  for (int i = 0; i < 20; ++i) {
    torch::Tensor mixed = x.clone();
    const Mix mix = cutmix(mixed, 1, random);
    for (int64_t n = 0; n < 4; ++n) {
      const auto partner = mix.partner[n].item<int64_t>();
      const double own = mixed[n].eq(static_cast<double>(n)).to(torch::kFloat).mean().item<float>();
      const double other =
          mixed[n].eq(static_cast<double>(partner)).to(torch::kFloat).mean().item<float>();
      if (partner == n) continue;
      EXPECT_NEAR(own, mix.share, 1e-6);
      EXPECT_NEAR(other, 1 - mix.share, 1e-6);
      pasted = pasted || mix.share < 1;
    }
  }
  EXPECT_TRUE(pasted);
}

Network two_blocks() {
  Network net{"test", 8, 8, {}};
  append(net, {.kind = LayerKind::input, .name = "input"});
  append(net, {.kind = LayerKind::conv, .name = "block1_conv1", .outputs = 4, .relu = true});
  append(net, {.kind = LayerKind::maxpool, .name = "block1_pool"});
  append(net, {.kind = LayerKind::conv, .name = "block2_conv1", .outputs = 4, .relu = true});
  append(net, {.kind = LayerKind::conv, .name = "block2_conv2", .outputs = 4, .relu = true});
  append(net, {.kind = LayerKind::maxpool, .name = "block2_pool"});
  return with_head(std::move(net), "gap", 3);
}

TEST(Suffix, RatesFallFromBlockToBlock) {
  const Network net = two_blocks();
  const Suffix suffix(net, 1, testing::make_tensors(net, 1), torch::kCPU);
  // Kernel and bias of block1_conv1, block2_conv1, block2_conv2, predictions.
  EXPECT_EQ(suffix.rate_factors(0.5), (std::vector<double>{0.25, 0.25, 0.5, 0.5, 0.5, 0.5, 1, 1}));
}

TEST(Suffix, AveragesMoveTowardsTheWeightsAndSwap) {
  const Network net = two_blocks();
  Suffix suffix(net, 1, testing::make_tensors(net, 1), torch::kCPU);
  std::vector<torch::Tensor> average = suffix.copies();
  const torch::Tensor before = average[0].clone();
  {
    const torch::NoGradGuard guard;
    suffix.tensor("block1_conv1.weight").add_(1);
  }
  suffix.average_into(average, 0.75);
  EXPECT_LT((average[0] - before - 0.25).abs().max().item<float>(), 1e-6);
  suffix.swap(average);
  EXPECT_LT((suffix.tensor("block1_conv1.weight") - before - 0.25).abs().max().item<float>(), 1e-6);
  EXPECT_LT((average[0] - before - 1).abs().max().item<float>(), 1e-6);
}

}  // namespace
}  // namespace graft
