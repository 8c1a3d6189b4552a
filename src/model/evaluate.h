// A classifier on labelled pictures.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "dataset/dataset.h"
#include "graft/classifier.h"
#include "graft/context.h"

namespace graft {

struct EvaluateJob {
  std::vector<Sample> samples;  ///< labels index the classifier's classes
  std::string label = "evaluating";
  RunContext context{};
};

/// Calls `sink` with each picture's logits, in the order of the samples; `on_error` for pictures
/// that cannot be decoded. Throws Error(input) where the model's answer is not finite.
void evaluate(const EvaluateJob& job, const Classifier& classifier,
              const std::function<void(const Sample&, std::span<const float>)>& sink,
              const std::function<void(const Sample&, const std::string&)>& on_error);

/// Samples of `indices` with their labels translated by name into the classifier's classes, as
/// find_label() compares. Throws Error(input) for a class that the classifier does not know.
std::vector<Sample> join_labels(const Dataset& dataset, const std::vector<size_t>& indices,
                                const std::vector<std::string>& classes);

}  // namespace graft
