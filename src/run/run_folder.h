// What a training run leaves in its folder: the names, once, and reading it back.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "graft/train.h"

namespace graft {

/// Files of a run folder.
namespace run_files {
inline constexpr const char* kModel = "model.safetensors";
inline constexpr const char* kHistory = "history.csv";
inline constexpr const char* kMetrics = "metrics.json";
inline constexpr const char* kConfig = "config.toml";
inline constexpr const char* kSplit = "split.csv";
inline constexpr const char* kPredictions = "predictions.csv";
inline constexpr const char* kSkipped = "skipped.csv";
inline constexpr const char* kReport = "report.html";
inline constexpr const char* kRates = "find-lr.csv";
inline constexpr const char* kRateChart = "find-lr.svg";
inline constexpr const char* kCheckpoints = "checkpoints";
inline constexpr const char* kBest = "checkpoints/best.safetensors";
inline constexpr const char* kLast = "checkpoints/last.safetensors";
inline constexpr const char* kState = "checkpoints/state.safetensors";
inline constexpr const char* kPreviousState = "checkpoints/state-previous.safetensors";
inline constexpr const char* kDamagedState = "checkpoints/state-damaged.safetensors";
inline constexpr const char* kEvents = "events.out.tfevents.";  ///< how event files begin
}  // namespace run_files

/// Removes the files of an earlier run.
void clear_run(const std::filesystem::path& folder);

/// Throws Error(input), naming file and line, for a file that is no history. Losses may be
/// NaN or infinite.
std::vector<EpochRecord> read_history(const std::filesystem::path& file);

/// What there is of a run; parts that are missing stay empty.
struct RunFolder {
  std::filesystem::path folder;
  std::vector<EpochRecord> history;
  std::string config;      ///< config.toml
  nlohmann::json metrics;  ///< metrics.json; null if missing
  [[nodiscard]] int best_epoch() const;
};

/// Reads the run that `model` (a run folder, or a file in one) belongs to. Throws Error(input),
/// naming file and field, where a part is not what training writes.
RunFolder read_run_folder(const std::filesystem::path& model);

}  // namespace graft
