// A run, live in a browser on the same machine.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "graft/context.h"
#include "graft/train.h"

#pragma GCC visibility push(default)
namespace graft {

/// Serves http://127.0.0.1:<port>/ on threads of its own while it lives: a page that asks for
/// /run.json every second, with the progress of the run and of its stages, curves, the mistakes of
/// the last epoch, and the report at the end. Only requests that name the loopback address are
/// answered. It is told what happens as an observer of the run, and of progress within stages as
/// (one of) its context's reporters.
class Dashboard : public TrainObserver, public Reporter {
 public:
  /// Throws Error(io) if the port cannot be had. `title` stands on the page. `run`: the folder, for
  /// Grad-CAM of the last epoch; empty: photos alone. `phases`: of the plan, so that times left are
  /// said to be of one phase where others follow.
  Dashboard(int port, const std::string& title, std::filesystem::path run = {},
            const std::vector<TrainPhase>& phases = {});
  /// What the run is going to do, before it begins: shares and times left are those of the whole
  /// run from here on, each stage weighed by what it costs.
  void expect(const TrainPlan& plan);
  /// Where a page is open and the run finished, waits for the page to take the report, at most
  /// three seconds.
  ~Dashboard() override;
  Dashboard(const Dashboard&) = delete;
  Dashboard& operator=(const Dashboard&) = delete;

  void past_epoch(const EpochRecord& record, bool best) override;
  void begin(int epochs) override;
  void step(const EpochProgress& progress) override;
  void epoch(const EpochRecord& record, bool best) override;
  void mistakes(int epoch, const std::vector<EpochMistake>& worst) override;
  void stage(TrainStage stage) override;
  void finished(const Run& run) override;

  void progress(const ProgressUpdate& update) override;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace graft
#pragma GCC visibility pop
