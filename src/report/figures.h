// Figures of a classifier's metrics, as SVG to stand in a page.
#pragma once

#include <string>
#include <vector>

#include "graft/image.h"
#include "report/metrics.h"

namespace graft {

/// The confusion matrix with counts in its cells, each row coloured by its shares; above
/// kMostInSvg classes a page would be too large, and confusion_image() has to do.
inline constexpr size_t kMostInSvg = 20;
std::string confusion_svg(const Metrics& metrics, const std::vector<std::string>& classes);
/// The same without text, a cell `cell` pixels wide.
Image confusion_image(const Metrics& metrics, int cell);

/// Accuracy over confidence, with the diagonal of perfect calibration.
std::string reliability_svg(const Metrics& metrics);

}  // namespace graft
