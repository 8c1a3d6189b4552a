// Labels of a dataset as a classifier knows them.
#pragma once

#include <string>
#include <vector>

#include "graft/dataset.h"

namespace graft {

/// Samples of `indices` with their labels translated by name into the classifier's classes, as
/// find_label() compares. Throws Error(input) for a class that the classifier does not know.
std::vector<Sample> join_labels(const Dataset& dataset, const std::vector<size_t>& indices,
                                const std::vector<std::string>& classes);

}  // namespace graft
