#include "train/loss.h"

#include <cmath>

#include "support.h"

namespace graft {
namespace {

// Smoothed cross-entropies by hand, each row times the weight of its own class.
TEST(Loss, WeighsImagesByTheirOwnClass) {
  const torch::Tensor logits = torch::tensor({{2.0F, -1.0F, 0.5F}, {0.0F, 1.0F, -2.0F}});
  const torch::Tensor labels = torch::tensor({0, 2}, torch::kLong);
  const torch::Tensor weights = torch::tensor({0.5F, 4.0F, 28.0F});
  for (const double smoothing : {0.0, 0.1, 0.3}) {
    const torch::Tensor got = training_losses(logits, labels, smoothing, weights);
    const torch::Tensor plain = training_losses(logits, labels, smoothing, {});
    for (int64_t row = 0; row < 2; ++row) {
      const auto* x = logits[row].data_ptr<float>();
      const double sum = std::exp(x[0]) + std::exp(x[1]) + std::exp(x[2]);
      const auto label = labels[row].item<int64_t>();
      double want = 0;
      for (int64_t c = 0; c < 3; ++c)
        want -= ((c == label ? 1 - smoothing : 0) + smoothing / 3) * (x[c] - std::log(sum));
      EXPECT_NEAR(plain[row].item<double>(), want, 1e-5);
      EXPECT_NEAR(got[row].item<double>(), want * weights[label].item<double>(), 1e-4);
    }
  }
}

// One image in fifty is of the rare class: what lowers the loss most is to know it, not to call
// everything by its name.
TEST(Loss, SmoothingDoesNotTurnBalancedClassesRound) {
  const torch::Tensor labels = torch::tensor({0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, torch::kLong);
  const torch::Tensor weights = torch::tensor({0.51F, 25.5F});
  torch::Tensor logits = torch::zeros({10, 2}, torch::requires_grad());
  training_losses(logits, labels, 0.1, weights).mean().backward();
  EXPECT_LT(logits.grad()[0][0].item<float>(), 0) << "its own class becomes more likely";
}

}  // namespace
}  // namespace graft
