// Figures of merit of a classifier on labelled images.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#pragma GCC visibility push(default)
namespace graft {

struct ClassMetrics {
  double precision = 0;  ///< 0 where nothing was predicted as this class
  double recall = 0;     ///< 0 where there is no image of this class
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
  /// Mean over the classes that an image has or is taken for; support: all.
  ClassMetrics macro;
  ClassMetrics weighted;  ///< mean weighted by support
  std::vector<ReliabilityBin> reliability;
  /// Percentile bootstrap over images, 1000 seeded resamples (Efron and Tibshirani, 1993). Where
  /// all are right or none is, top-1's is Wilson's (1927), and macro_f1's as wide in proportion.
  Interval top1_interval;
  Interval loss_interval;
  Interval macro_f1_interval;
};

/// For reading: accuracy, per-class table, confusion matrix.
std::string metrics_text(const Metrics& metrics, const std::vector<std::string>& classes);
/// As a JSON document: what `graft evaluate --json` prints.
std::string metrics_json(const Metrics& metrics, const std::vector<std::string>& classes);

}  // namespace graft
#pragma GCC visibility pop
