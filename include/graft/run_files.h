// The files that training leaves in a run folder; docs/formats.md says what is in each.
#pragma once

namespace graft::run_files {

inline constexpr const char* kModel = "model.safetensors";
inline constexpr const char* kHistory = "history.csv";
inline constexpr const char* kMetrics = "metrics.json";
inline constexpr const char* kTimes = "times.json";
inline constexpr const char* kConfig = "config.toml";
inline constexpr const char* kSplit = "split.csv";
inline constexpr const char* kLearnedBefore = "learned-before.csv";
inline constexpr const char* kPredictions = "predictions.csv";
inline constexpr const char* kSkipped = "skipped.csv";
inline constexpr const char* kReview = "review.csv";
inline constexpr const char* kCorrections = "corrections.csv";
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

}  // namespace graft::run_files
