// The one-pass optimisers against LibTorch's own.
#include "train/fused_optimizer.h"

#include <cmath>

#include "support.h"
#include "train/schedule.h"

namespace graft {
namespace {

/// Largest difference after some steps on the same gradients.
double difference(const OptimizerOptions& options, double rate) {
  torch::manual_seed(5);
  // More than one chunk, and a parameter that never gets a gradient.
  std::vector<torch::Tensor> mine = {torch::randn({300, 401}), torch::randn({7}),
                                     torch::randn({3})};
  std::vector<torch::Tensor> theirs;
  for (torch::Tensor& p : mine) {
    theirs.push_back(p.clone().set_requires_grad(true));
    p.set_requires_grad(true);
  }
  FusedOptimizer own(options, mine);
  std::unique_ptr<torch::optim::Optimizer> other;
  if (options.kind == OptimizerKind::sgd)
    other = std::make_unique<torch::optim::SGD>(theirs, torch::optim::SGDOptions(rate)
                                                            .momentum(options.momentum)
                                                            .weight_decay(options.weight_decay));
  else if (options.kind == OptimizerKind::adamw)
    other = std::make_unique<torch::optim::AdamW>(theirs, torch::optim::AdamWOptions(rate)
                                                              .weight_decay(options.weight_decay)
                                                              .betas({0.9, options.beta2}));
  else
    other = std::make_unique<torch::optim::Adam>(theirs, torch::optim::AdamOptions(rate)
                                                             .weight_decay(options.weight_decay)
                                                             .betas({0.9, options.beta2}));
  double most = 0;
  for (int step = 0; step < 6; ++step) {
    own.zero_grad();
    for (size_t k = 0; k < 2; ++k) {
      const torch::Tensor g = torch::randn_like(mine[k]).detach() * std::pow(10.0, step - 3);
      mine[k].mutable_grad() = g.clone();
      theirs[k].mutable_grad() = g.clone();
    }
    own.step(rate);
    other->step();
    for (size_t k = 0; k < mine.size(); ++k)
      most = std::max(most, (mine[k] - theirs[k]).abs().max().item<double>());
  }
  EXPECT_EQ(own.steps(), 6);
  return most;
}

TEST(FusedOptimizer, AgreesWithLibTorch) {
  // Parameters of up to 5, whose last place is 4.8e-7, rounded in six steps.
  constexpr double kTolerance = 3e-6;
  for (const double decay : {0.0, 0.03}) {
    EXPECT_LT(difference({OptimizerKind::adam, decay}, 0.01), kTolerance);
    EXPECT_LT(difference({OptimizerKind::adamw, decay}, 0.01), kTolerance);
    EXPECT_LT(difference({OptimizerKind::sgd, decay, 0.9}, 1e-4), kTolerance);
    EXPECT_LT(difference({OptimizerKind::adamw, decay, 0, 0.95}, 0.01), kTolerance);
  }
}

TEST(FusedOptimizer, ClipsTheCommonNorm) {
  std::vector<torch::Tensor> p = {torch::zeros({2}), torch::zeros({1})};
  for (torch::Tensor& t : p) t.set_requires_grad(true);
  p[0].mutable_grad() = torch::tensor({3.0F, 0.0F});
  p[1].mutable_grad() = torch::tensor({4.0F});
  FusedOptimizer optimizer({OptimizerKind::sgd, 0, 0}, p);
  EXPECT_DOUBLE_EQ(optimizer.clip_gradients(10), 5);
  EXPECT_FLOAT_EQ(p[1].grad().item<float>(), 4);
  EXPECT_DOUBLE_EQ(optimizer.clip_gradients(1), 5);
  EXPECT_FLOAT_EQ(p[0].grad()[0].item<float>(), 0.6F);
  EXPECT_FLOAT_EQ(p[1].grad().item<float>(), 0.8F);
}

TEST(Schedule, AgreesWithPyTorch) {
  // torch.optim.lr_scheduler.OneCycleLR(max_lr=1, total_steps=10) and CosineAnnealingLR(T_max=10).
  const double one_cycle[] = {0.04,        0.52,        1,           0.950484632, 0.811745654,
                              0.611262022, 0.388741978, 0.188258346, 0.049519368, 0.000004};
  const double cosine[] = {1,   0.975528258, 0.904508497, 0.793892626, 0.654508497,
                           0.5, 0.345491503, 0.206107374, 0.095491503, 0.024471742};
  for (int64_t i = 0; i < 10; ++i) {
    EXPECT_NEAR(schedule_factor(Schedule::one_cycle, 0, i, 10), one_cycle[i], 1e-9) << i;
    EXPECT_NEAR(schedule_factor(Schedule::cosine, 0, i, 10), cosine[i], 1e-9) << i;
    EXPECT_EQ(schedule_factor(Schedule::constant, 0, i, 10), 1);
  }
  EXPECT_NEAR(schedule_factor(Schedule::one_cycle, 0, 4, 37), 0.366003630, 1e-9);
  EXPECT_NEAR(schedule_factor(Schedule::one_cycle, 0, 20, 37), 0.680788431, 1e-9);
}

TEST(Schedule, WarmsUpAndSurvivesTinyRuns) {
  EXPECT_DOUBLE_EQ(schedule_factor(Schedule::constant, 4, 0, 10), 0.2);
  EXPECT_DOUBLE_EQ(schedule_factor(Schedule::constant, 4, 3, 10), 0.8);
  EXPECT_DOUBLE_EQ(schedule_factor(Schedule::constant, 4, 4, 10), 1);
  EXPECT_DOUBLE_EQ(schedule_factor(Schedule::cosine, 4, 4, 10), 1);
  for (const Schedule schedule : {Schedule::constant, Schedule::cosine, Schedule::one_cycle})
    for (int64_t total = 1; total < 5; ++total)
      for (int64_t step = 0; step < total + 2; ++step) {
        const double factor = schedule_factor(schedule, 0, step, total);
        EXPECT_TRUE(factor >= 0 && factor <= 1)
            << static_cast<int>(schedule) << " " << step << "/" << total;
      }
}
TEST(Schedule, SuggestsTheRateOfTheSteepestFall) {
  std::vector<RatePoint> points;
  for (int i = 0; i < 100; ++i) {
    const double log_rate = -7 + 8 * i / 99.0;
    // Falls around 1e-3, rises from 1e-1 on.
    const double loss = 2 - std::tanh(2 * (log_rate + 3)) + std::exp(4 * (log_rate + 0.5));
    points.push_back({std::pow(10, log_rate), loss});
  }
  EXPECT_NEAR(std::log10(suggested_rate(points).value()), -3, 0.3);
  // No slope, no suggestion.
  EXPECT_FALSE(suggested_rate({}).has_value());
  EXPECT_FALSE(suggested_rate({{1e-7, 1}}).has_value());
  for (size_t i = 0; i < points.size(); ++i) points[i].loss = static_cast<double>(i);
  EXPECT_FALSE(suggested_rate(points).has_value());
}

}  // namespace
}  // namespace graft
