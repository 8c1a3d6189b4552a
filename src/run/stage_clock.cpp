#include "run/stage_clock.h"

#include <fmt/chrono.h>

#include <ctime>
#include <utility>

#include "base/fail.h"
#include "base/file.h"

namespace graft {

StageClock::StageClock(std::filesystem::path folder, bool resumed, const RunContext& context)
    : folder_(std::move(folder)) {
  std::optional<RunTimes> before;
  std::error_code error;
  if (resumed) try {
      before = read_times(folder_);
      if (const fs::path history = folder_ / run_files::kHistory;
          !before && fs::exists(history, error)) {
        // Of an earlier version.
        before.emplace();
        before->whole = false;
        for (const EpochRecord& epoch : read_history(history))
          before->seconds[static_cast<size_t>(TrainStage::training)] += epoch.seconds;
      }
    } catch (const Error& damaged) {
      context.tell(Severity::note, fmt::format("times are counted anew: {}", damaged.what()));
      before.emplace();
      before->whole = false;
    }
  if (before) times_ = std::move(*before);
  if (times_.started.empty())
    times_.started = fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
}

StageClock::~StageClock() {
  if (!begun_) return;
  try {
    save();
  } catch (const Error&) {
    return;  // the disk is full, or the folder gone: not worth more than the run
  }
}

void StageClock::stage(TrainStage stage) {
  begun_ = true;
  save();
  stage_ = stage;
}

void StageClock::epoch(const EpochRecord& /*record*/, bool /*best*/) { save(); }

void StageClock::save() {
  const auto now = Clock::now();
  times_.seconds.at(static_cast<size_t>(stage_)) +=
      std::chrono::duration<double>(now - since_).count();
  since_ = now;
  write_times(folder_, times_);
}

}  // namespace graft
