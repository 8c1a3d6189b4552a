// Parts that the page of a dataset and that of a run share.
#pragma once

#include <string>

#include "graft/inspect.h"

namespace graft {

/// Bars of the images in each class, splits side by side, as a table.
std::string class_chart(const Dataset& dataset);

}  // namespace graft
