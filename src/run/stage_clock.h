// How long each stage of a run takes, kept in its folder.
#pragma once

#include <chrono>
#include <filesystem>

#include "graft/context.h"
#include "graft/train.h"
#include "run/run_folder.h"

namespace graft {

/// Counts from its construction, in the stage of features, and goes on where an earlier process
/// that worked on the run left off. Writes nothing before it is told of a stage, then
/// at each stage and epoch and at its end, however that comes, but for a kill: what came after the
/// last epoch is lost then.
class StageClock : public TrainObserver {
 public:
  /// `resumed`: adds to what the folder has.
  StageClock(std::filesystem::path folder, bool resumed, const RunContext& context);
  ~StageClock() override;
  StageClock(const StageClock&) = delete;
  StageClock& operator=(const StageClock&) = delete;

  void stage(TrainStage stage) override;
  void epoch(const EpochRecord& record, bool best) override;

 private:
  using Clock = std::chrono::steady_clock;
  void save();

  std::filesystem::path folder_;
  RunTimes times_;
  TrainStage stage_ = TrainStage::features;
  Clock::time_point since_ = Clock::now();  // what has not been counted
  bool begun_ = false;
};

}  // namespace graft
