#include "run/calibrate.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <optional>
#include <vector>

#include "model/logits.h"
#include "report/metrics.h"

namespace graft {
namespace {

/// Where `cost` is least in [low, high], if it has one valley there.
template <typename Cost>
double golden_section(double low, double high, const Cost& cost) {
  constexpr int kSteps = 60;  // 6 · 0.618^60 is nothing
  const double golden = (std::sqrt(5.0) - 1) / 2;
  for (int i = 0; i < kSteps; ++i) {
    const double a = high - golden * (high - low);
    const double b = low + golden * (high - low);
    if (cost(a) < cost(b))
      high = b;
    else
      low = a;
  }
  return (low + high) / 2;
}

}  // namespace

Calibration fit_temperature(std::span<const float> logits, std::span<const int> labels,
                            size_t classes) {
  check_logits(logits);
  constexpr double kUsual = 3;  // of log T, either way: nearly all temperatures lie within
  constexpr double kGrid = 0.5;
  constexpr double kMost = std::numeric_limits<float>::max();
  const double widest = std::log(kWidestTemperature);
  std::vector<float> scaled(classes);
  const auto cost = [&](double log_t) {
    const auto factor = static_cast<float>(std::exp(-log_t));
    double sum = log_t * log_t;
    for (size_t i = 0; i < labels.size(); ++i) {
      for (size_t c = 0; c < classes; ++c)
        scaled[c] =
            static_cast<float>(std::clamp(double{logits[i * classes + c] * factor}, -kMost, kMost));
      sum += cross_entropy(scaled, labels[i]);
    }
    return sum;
  };
  double best = golden_section(-kUsual, kUsual, cost);
  // With the pull towards 1 there may be a second valley, and sharp logits have theirs far out.
  double least = cost(best);
  std::optional<double> better;
  const int steps = static_cast<int>(std::ceil(widest / kGrid));
  for (int k = -steps; k <= steps; ++k) {
    const double log_t = widest * k / steps;
    const double value = cost(log_t);
    if (value >= least) continue;
    least = value;
    better = log_t;
  }
  if (better)
    best =
        golden_section(std::max(*better - kGrid, -widest), std::min(*better + kGrid, widest), cost);
  constexpr double kAtBound = 1e-6;
  return {std::exp(best), std::abs(best) > widest - kAtBound};
}

}  // namespace graft
