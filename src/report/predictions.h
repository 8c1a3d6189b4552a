// What a classifier said about labelled images, written and read again.
#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "graft/evaluate.h"

namespace graft {

/// Throws Error(usage) where the parts do not fit each other.
void check_predictions(const Predictions& predictions);

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
