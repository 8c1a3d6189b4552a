// Learning rates over a run.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace graft {

/// What the learning rate is multiplied with at step `step` of `total` (from 0).
/// - "constant": 1, after a linear rise over `warmup` steps;
/// - "cosine": from 1 down to 0 along half a cosine, after the rise (Loshchilov and Hutter, "SGDR",
///   2017, without restarts);
/// - "one-cycle": up from 1/25 to 1 over the first 30 % of the steps, then down to 1/250,000, both
///   along half a cosine: the defaults of PyTorch's OneCycleLR (torch/optim/lr_scheduler.py), after
///   Smith and Topin, "Super-convergence", 2018. `warmup` does not matter.
double schedule_factor(const std::string& schedule, double warmup, int64_t step, int64_t total);

/// A step of a learning-rate range test.
struct RatePoint {
  double rate = 0;
  double loss = 0;
};

/// The rate where the loss falls most steeply over the logarithm of the rate: a safe --lr. Nothing
/// where it falls nowhere, or where there are too few points for a slope.
std::optional<double> suggested_rate(const std::vector<RatePoint>& points);

}  // namespace graft
