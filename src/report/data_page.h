// Parts that the page of a dataset and that of a run share.
#pragma once

#include <string>

#include "graft/inspect.h"

namespace graft {

/// Bars of images in each class, as SVG; splits stacked.
std::string class_chart(const Dataset& dataset);

}  // namespace graft
