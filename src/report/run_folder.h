// Reading back what a training run left in its folder.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace graft {

/// One line of history.csv.
struct HistoryRow {
  int epoch = 0;
  double loss = 0;
  double accuracy = 0;
  double val_loss = 0;
  double val_accuracy = 0;
  double learning_rate = 0;
  double seconds = 0;
};

/// Throws Error(input) for a file that is no history.
std::vector<HistoryRow> read_history(const std::filesystem::path& file);

/// What there is of a run; parts that are missing stay empty.
struct RunFolder {
  std::filesystem::path folder;
  std::vector<HistoryRow> history;
  std::string config;      ///< config.toml
  nlohmann::json metrics;  ///< metrics.json; null if missing
  [[nodiscard]] int best_epoch() const;
};

/// Reads the run that `model` (a run folder, or a file in one) belongs to.
RunFolder read_run_folder(const std::filesystem::path& model);

}  // namespace graft
