#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace graft {
namespace {

/// From `begin` to `end` along half a cosine; `at` in [0, 1].
double half_cosine(double begin, double end, double at) {
  return end + (begin - end) / 2 * (1 + std::cos(std::numbers::pi * std::clamp(at, 0.0, 1.0)));
}

}  // namespace

double schedule_factor(Schedule schedule, double warmup, int64_t step, int64_t total) {
  const auto at = static_cast<double>(step);
  const auto last = static_cast<double>(std::max<int64_t>(total - 1, 1));
  if (schedule == Schedule::one_cycle) {
    const double peak = 0.3 * static_cast<double>(total) - 1;
    if (at <= peak) return half_cosine(1.0 / 25, 1, at / std::max(peak, 1.0));
    return half_cosine(1, 1.0 / 250'000, (at - peak) / std::max(last - peak, 1.0));
  }
  if (at < warmup) return (at + 1) / (warmup + 1);
  if (schedule == Schedule::cosine)
    return half_cosine(1, 0, (at - warmup) / std::max(last + 1 - warmup, 1.0));
  return 1;
}

std::optional<double> suggested_rate(const std::vector<RatePoint>& points) {
  // Slopes over a window: single steps are noise.
  constexpr size_t kWindow = 8;
  double best = 0;
  std::optional<double> rate;
  for (size_t i = kWindow; i + kWindow < points.size(); ++i) {
    const double slope = points[i + kWindow].loss - points[i - kWindow].loss;
    if (slope < best) {
      best = slope;
      rate = points[i].rate;
    }
  }
  return rate;
}

}  // namespace graft
