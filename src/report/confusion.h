// The confusion matrix, as a table to read and to choose photos from.
#pragma once

#include <string>
#include <vector>

#include "report/metrics.h"

namespace graft {

/// Classes in an order in which those that are taken for each other stand side by side. All of
/// them, or the `most` with the most mistakes.
std::vector<size_t> confusion_order(const Metrics& metrics, size_t most);

/// Rows true, columns predicted; right answers blue, mistakes orange, darker where a larger share
/// of the row went there. Up to a dozen classes stand in their own order, more in
/// confusion_order(); of more than 200 classes those with the most mistakes are shown, which is
/// said. Cells know their classes, for the page's script.
std::string confusion_table(const Metrics& metrics, const std::vector<std::string>& classes);

/// Which classes are taken for which, the most frequent ones first; empty where nothing is.
std::string confusions_list(const Metrics& metrics, const std::vector<std::string>& classes);

}  // namespace graft
