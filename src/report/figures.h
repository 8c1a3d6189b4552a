// Figures of a classifier's metrics.
#pragma once

#include <string>

#include "graft/image.h"
#include "report/metrics.h"

namespace graft {

/// The confusion matrix as an image without text, a cell `cell` pixels wide, each row coloured by
/// its shares.
Image confusion_image(const Metrics& metrics, int cell);

/// Accuracy over confidence, with the diagonal of perfect calibration.
std::string reliability_svg(const Metrics& metrics);

}  // namespace graft
