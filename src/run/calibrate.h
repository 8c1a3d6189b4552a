// The temperature that makes a classifier's probabilities mean what they say.
#pragma once

#include <cstddef>
#include <span>

namespace graft {

struct Calibration {
  double temperature = 1;
  bool at_bound = false;  ///< a better one may lie beyond kWidestTemperature, or its inverse
};
constexpr double kWidestTemperature = 1e4;

/// The temperature T that logits of held-out images (rows of `classes` values) should be divided
/// by: the one of least cross-entropy (Guo et al., "On calibration of modern neural networks",
/// 2017), with a weak pull towards 1 that only matters for a few dozen images. Searched from
/// 1 / kWidestTemperature to kWidestTemperature.
Calibration fit_temperature(std::span<const float> logits, std::span<const int> labels,
                            size_t classes);

}  // namespace graft
