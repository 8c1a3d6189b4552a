// Learning rates over a run.
#pragma once

#include <cstdint>

#include "graft/recipe.h"
#include "graft/train.h"

namespace graft {

/// What the learning rate is multiplied with at step `step` of `total` (from 0).
/// - constant: 1, after a linear rise over `warmup` steps;
/// - cosine: from 1 down to 0 along half a cosine, after the rise (Loshchilov and Hutter, "SGDR",
///   2017, without restarts);
/// - one-cycle: up from 1/25 to 1 over the first 30 % of the steps, then down to 1/250,000, both
///   along half a cosine: the defaults of PyTorch's OneCycleLR (torch/optim/lr_scheduler.py), after
///   Smith and Topin, "Super-convergence", 2018. `warmup` does not matter.
double schedule_factor(Schedule schedule, double warmup, int64_t step, int64_t total);

// At most so many steps has a learning-rate range test: enough for a slope over ten decades.
inline constexpr int kRateSteps = 120;

}  // namespace graft
