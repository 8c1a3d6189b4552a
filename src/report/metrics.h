// Figures of merit of a classifier on labelled pictures.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

namespace graft {

struct ClassMetrics {
  double precision = 0;  ///< 0 where nothing was predicted as this class
  double recall = 0;     ///< 0 where there is no picture of this class
  double f1 = 0;
  int64_t support = 0;
};

struct Metrics {
  int64_t images = 0;
  double top1 = 0;  ///< fraction, 0–1
  double top5 = 0;
  double loss = 0;  ///< mean cross-entropy in nats
  double ece = 0;   ///< expected calibration error, 15 equal bins (Guo et al., 2017)
  std::vector<std::vector<int64_t>> confusion;  ///< rows true, columns predicted
  std::vector<ClassMetrics> per_class;
};

/// Collects one picture after another.
class MetricsBuilder {
 public:
  explicit MetricsBuilder(size_t classes);
  void add(std::span<const float> logits, int label);
  [[nodiscard]] Metrics finish() const;

 private:
  struct Bin {
    double confidence = 0;
    double correct = 0;
  };
  size_t classes_;
  int64_t images_ = 0;
  int64_t top1_ = 0;
  int64_t top5_ = 0;
  double loss_ = 0;
  std::vector<Bin> bins_;
  std::vector<std::vector<int64_t>> confusion_;
};

/// The document of `evaluate --json`.
nlohmann::json metrics_json(const Metrics& metrics, const std::vector<std::string>& classes);
/// For reading: accuracy, per-class table, confusion matrix.
std::string metrics_text(const Metrics& metrics, const std::vector<std::string>& classes);

}  // namespace graft
