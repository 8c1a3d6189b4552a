// How much of a run is over, and how long the rest will take.
#pragma once

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "graft/context.h"
#include "graft/train.h"

namespace graft {

/// What a run is going to compute.
struct PlannedWork {
  struct Phase {
    double images = 0;         ///< that are read, or go through the prefix, before its first epoch
    double prefix_flops = 0;   ///< of an image in the frozen layers
    double flops_each = 0;     ///< of these images before the first epoch; 0: they are read alone
    bool every_epoch = false;  ///< they go through the prefix anew in each
    bool stored = false;       ///< the phase before has left what they need in the cache
    int epochs = 0;            ///< at most
    double epoch_flops = 0;    ///< of an epoch: forward, two backward products, and the prefix
    double epoch_seconds = 0;  ///< beside them: the optimiser's, which memory bounds
  };
  std::vector<Phase> phases;
  double evaluated = 0;  ///< images, each of its views counted
  double evaluation_flops = 0;
};
PlannedWork planned_work(const TrainPlan& plan);

/// Weighs the stages of a run by what they cost: the planned operations, at the rate that has been
/// measured so far in this run.
class RunForecast {
 public:
  using Clock = std::chrono::steady_clock;
  explicit RunForecast(PlannedWork work) : work_(std::move(work)) {}

  void stage(TrainStage stage, int epochs_made);
  void progress(const ProgressUpdate& update, Clock::time_point now);

  /// Images of the stage that are done, and all of them; 0 where they are not known.
  [[nodiscard]] double done() const { return done_; }
  [[nodiscard]] double total(int epochs_made) const;
  /// Of the stage's images.
  [[nodiscard]] std::optional<double> stage_seconds_left(int epochs_made) const;

  /// Of the whole run. `of_phase`: the seconds left of the phase that trains, `epoch_seconds`:
  /// those of an epoch of it, as measured; none: not known.
  [[nodiscard]] std::optional<double> seconds_left(int epochs_made, std::optional<double> of_phase,
                                                   std::optional<double> epoch_seconds) const;

 private:
  [[nodiscard]] size_t phase_of(int epochs_made) const;
  [[nodiscard]] std::optional<double> rate(size_t phase, std::optional<double> epoch_seconds) const;

  PlannedWork work_;
  std::optional<TrainStage> stage_;
  double done_ = 0;      // images of this stage
  double computed_ = 0;  // of them, those that were not in the cache
  double seconds_ = 0;   // that these took
  std::string task_;
  size_t task_done_ = 0;
  Clock::time_point last_;
  std::optional<double> rate_;  // operations a second, in the stages before
};

}  // namespace graft
