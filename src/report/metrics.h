// Working out figures of merit.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "graft/metrics.h"
#include "model/logits.h"

namespace graft {

/// All functions here throw Error(input) for logits that are not finite (model/logits.h).

/// Cross-entropy of one image in nats.
double cross_entropy(std::span<const float> logits, int label);

/// Collects one image after another. Keeps all probabilities, for the ROC curves.
class MetricsBuilder {
 public:
  explicit MetricsBuilder(size_t classes);
  void add(std::span<const float> logits, int label);
  [[nodiscard]] Metrics finish() const;

 private:
  [[nodiscard]] std::optional<double> auc(size_t c) const;
  void add_intervals(Metrics& metrics) const;

  size_t classes_;
  int64_t top5_ = 0;
  std::vector<int> labels_;
  std::vector<int> predicted_;
  std::vector<double> losses_;
  std::vector<double> probabilities_;  // (images, classes)
  std::vector<std::vector<int64_t>> confusion_;
};

/// Throws Error(usage) where the metrics are not of so many classes.
void check_metrics(const Metrics& metrics, const std::vector<std::string>& classes);

/// The document of `evaluate --json`.
nlohmann::json metrics_document(const Metrics& metrics, const std::vector<std::string>& classes);

}  // namespace graft
