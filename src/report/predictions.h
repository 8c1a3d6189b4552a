// What a classifier said about labelled pictures: kept, written, read again.
#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "dataset/dataset.h"
#include "report/metrics.h"

namespace graft {

/// Pictures with their labels (indices into `classes`) and logits, those that could be read.
struct Predictions {
  std::vector<std::string> classes;
  std::vector<Sample> samples;
  std::vector<float> logits;  ///< (samples, classes)

  void add(const Sample& sample, std::span<const float> row);
  [[nodiscard]] std::span<const float> row(size_t i) const {
    return {&logits[i * classes.size()], classes.size()};
  }
  [[nodiscard]] int predicted(size_t i) const;
  [[nodiscard]] Metrics measure() const;
};

/// path,label,predicted,probability, and unless not `whole` each class's probability under
/// "p:<class>", with all digits of a double; with `split`, a column of that name. `header`: with
/// the line of names.
std::string predictions_csv(const Predictions& predictions, const std::string& split, bool header,
                            bool whole = true);

/// One row of such a file.
struct PredictionRow {
  std::string path;
  std::string label;
  std::string predicted;
  double probability = 0;  ///< of the class predicted
  std::string split;
};

/// Throws Error(input) for a file that is not one.
std::vector<PredictionRow> read_predictions(const std::filesystem::path& file);

}  // namespace graft
