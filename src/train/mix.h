// MixUp and CutMix.
#pragma once

#include <torch/torch.h>

#include <cstdint>

#include "base/random.h"

namespace graft {

/// A batch's partners: sample i is mixed with sample `partner[i]`, of which it gets the share
/// 1 − `share`; the targets are mixed alike.
struct Mix {
  torch::Tensor partner;  ///< (rows) indices; undefined: not mixed
  double share = 1;       ///< of the sample itself
};

/// Beta(a, a) from two Gamma variates (Marsaglia and Tsang, 2000).
double draw_beta(Random& random, double a);

/// λ·x + (1 − λ)·x[partner], λ from Beta(alpha, alpha) (Zhang et al., "mixup", 2018).
Mix mixup(torch::Tensor& inputs, double alpha, Random& random);
/// A rectangle of the share 1 − λ of each map, the same for all, comes from the partner (Yun et
/// al., "CutMix", 2019). Inputs without rows and columns are mixed as by mixup().
Mix cutmix(torch::Tensor& inputs, double alpha, Random& random);

}  // namespace graft
