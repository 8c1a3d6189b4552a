// Reading back what a training run leaves in its folder.
#pragma once

#include <array>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "graft/run_files.h"
#include "graft/train.h"

namespace graft {

/// The first line of history.csv.
inline constexpr std::string_view kHistoryHeader =
    "epoch,loss,accuracy,val_loss,val_accuracy,learning_rate,seconds\n";

/// Removes the files of an earlier run.
void clear_run(const std::filesystem::path& folder);

/// Throws Error(input), naming file and line, for a file that is no history. Losses may be
/// NaN or infinite.
std::vector<EpochRecord> read_history(const std::filesystem::path& file);

/// Where a run's time went, over all processes that worked on it: times.json.
struct RunTimes {
  std::string started;                         ///< "2026-11-27T00:15:41Z"
  std::array<double, kTrainStages> seconds{};  ///< of each stage
  bool whole = true;  ///< false where an earlier version began the run, which recorded epochs alone
  [[nodiscard]] double total() const;
};
/// How every times.json begins.
inline constexpr std::string_view kTimesStart = "{\n  \"seconds\": {\n    \"evaluation\":";
/// Nothing where the folder has none. Throws Error(input) for a file that is none.
std::optional<RunTimes> read_times(const std::filesystem::path& folder);
void write_times(const std::filesystem::path& folder, const RunTimes& times);

/// What there is of a run; parts that are missing stay empty.
struct RunFolder {
  std::filesystem::path folder;
  std::vector<EpochRecord> history;
  std::string config;      ///< config.toml
  nlohmann::json metrics;  ///< metrics.json; null if missing
  std::optional<RunTimes> times;
  [[nodiscard]] int best_epoch() const;
};

/// Reads the run that `model` (a run folder, or a file in one) belongs to. Throws Error(input),
/// naming file and field, where a part is not what training writes.
RunFolder read_run_folder(const std::filesystem::path& model);

}  // namespace graft
