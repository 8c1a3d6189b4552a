// Figures of merit of a classifier on labelled pictures.
#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace graft {

struct ClassMetrics {
  double precision = 0;  ///< 0 where nothing was predicted as this class
  double recall = 0;     ///< 0 where there is no picture of this class
  double f1 = 0;
  int64_t support = 0;
  /// Area under the ROC curve of this class against all others; none where one side is empty.
  std::optional<double> auc;
};

/// One bar of a reliability diagram: predictions whose confidence lies in [i/15, (i+1)/15).
struct ReliabilityBin {
  int64_t count = 0;
  double confidence = 0;  ///< mean; 0 where empty
  double accuracy = 0;
};

/// 95 % of the resamples lie between.
struct Interval {
  double low = 0;
  double high = 0;
};

struct Metrics {
  int64_t images = 0;
  double top1 = 0;  ///< fraction, 0–1
  double top5 = 0;
  double loss = 0;  ///< mean cross-entropy in nats
  double ece = 0;   ///< expected calibration error, 15 equal bins (Guo et al., 2017)
  std::vector<std::vector<int64_t>> confusion;  ///< rows true, columns predicted
  std::vector<ClassMetrics> per_class;
  ClassMetrics macro;     ///< mean over all classes; support: all
  ClassMetrics weighted;  ///< mean weighted by support
  std::vector<ReliabilityBin> reliability;
  /// Percentile bootstrap over pictures, 1000 seeded resamples (Efron and Tibshirani, 1993).
  Interval top1_interval;
  Interval loss_interval;
  Interval macro_f1_interval;
};

/// All functions here throw Error(input) for logits that are not finite (model/logits.h).

/// Softmax in double precision.
std::vector<double> softmax(std::span<const float> logits);
/// Cross-entropy of one picture in nats.
double cross_entropy(std::span<const float> logits, int label);

/// Collects one picture after another. Keeps all probabilities, for the ROC curves.
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

struct Calibration {
  double temperature = 1;
  bool at_bound = false;  ///< a better one may lie beyond kWidestTemperature, or its inverse
};
constexpr double kWidestTemperature = 1e4;

/// The temperature T that logits of held-out images (rows of `classes` values) should be divided
/// by: the one of least cross-entropy (Guo et al., "On calibration of modern neural networks",
/// 2017), with a weak pull towards 1 that only matters for a few dozen images. Searched from
/// 1 / kWidestTemperature to kWidestTemperature.
Calibration fit_temperature(std::span<const float> logits, std::span<const int> labels,
                            size_t classes);

/// The document of `evaluate --json`.
nlohmann::json metrics_json(const Metrics& metrics, const std::vector<std::string>& classes);
/// For reading: accuracy, per-class table, confusion matrix.
std::string metrics_text(const Metrics& metrics, const std::vector<std::string>& classes);

}  // namespace graft
