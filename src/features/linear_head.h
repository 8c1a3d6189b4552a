// Probabilities of images by classifiers that did not learn from them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "graft/context.h"

namespace graft {

/// Rows of as many values each, one behind the other.
struct FeatureRows {
  size_t columns = 0;
  std::vector<float> values{};
  [[nodiscard]] size_t rows() const { return columns == 0 ? 0 : values.size() / columns; }
  [[nodiscard]] const float* row(size_t i) const { return values.data() + i * columns; }
};

/// Shifts and scales each column to mean 0 and deviation 1; constant ones become 0.
void standardize(FeatureRows& features);

/// A linear layer before a softmax.
struct LinearHead {
  size_t inputs = 0;
  size_t classes = 0;
  std::vector<double> weights{};  ///< [input][class]
  std::vector<double> bias{};
  /// Softmax of its outputs, `classes` values.
  void probabilities(const float* row, std::span<float> out) const;
};

struct LinearHeadOptions {
  /// Half of it times the weights' sum of squares is added to the mean cross-entropy.
  double penalty = 0;
  int most_steps = 100;
};

/// Multinomial logistic regression by L-BFGS (Liu and Nocedal, "On the limited memory BFGS method
/// for large scale optimization", 1989) from zero, until the loss falls by less than a part in
/// 100,000 a step. `rows`: which of the features are learned from, `labels` of all of them. The
/// result does not depend on the number of threads.
LinearHead fit_linear_head(const FeatureRows& features, std::span<const int> labels, size_t classes,
                           std::span<const size_t> rows, const LinearHeadOptions& options,
                           const RunContext& context);

struct CrossValidation {
  int folds = 5;
  uint64_t seed = 0;  ///< of who is in which fold
  LinearHeadOptions head{};
};

/// Rows of `classes` probabilities, each by a head that was fitted to the other folds. Folds are
/// stratified; rows of the same group (any numbers) share one.
std::vector<float> cross_validated(const FeatureRows& features, std::span<const int> labels,
                                   std::span<const size_t> groups, size_t classes,
                                   const CrossValidation& options, const RunContext& context);

}  // namespace graft
