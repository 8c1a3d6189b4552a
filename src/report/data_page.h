// The page of `graft check --html`.
#pragma once

#include <string>

#include "dataset/inspect.h"

namespace graft {

/// Self-contained HTML: counts, and everything that was found, with thumbnails.
std::string data_page(const Dataset& dataset, const Inspection& found);

/// Bars of pictures in each class, as SVG; splits stacked.
std::string class_chart(const Dataset& dataset);

}  // namespace graft
