#include "report/run_forecast.h"

#include <algorithm>
#include <string_view>

namespace graft {
namespace {

constexpr double kLeastSeconds = 0.5;  // before, a rate says nothing
// Of an optimiser's pass over parameters, gradients and moments, which is bound by memory: an
// assumption.
constexpr double kBytesPerSecond = 8e9;

}  // namespace

PlannedWork planned_work(const TrainPlan& plan) {
  PlannedWork work;
  const auto train = static_cast<double>(plan.dataset.of(Split::train).size());
  const auto validation = static_cast<double>(plan.dataset.of(Split::validation).size());
  const auto test = static_cast<double>(plan.dataset.of(Split::test).size());
  const std::vector<double> flops = layer_flops(plan.network);
  double all = 0;
  double suffix = 0;  // of the phase, in the end of the last one
  for (const double f : flops) all += f;
  for (const TrainPhase& phase : plan.phases) {
    suffix = 0;
    for (size_t i = phase.prefix_end; i < flops.size(); ++i) suffix += flops[i];
    const double prefix = all - suffix;
    PlannedWork::Phase planned;
    planned.prefix_flops = phase.prefix_end > 1 ? prefix : 0;
    planned.every_epoch = plan.views == 0 || (!phase.keep_features && !plan.cache.use);
    planned.images = train * (planned.every_epoch ? 1 : std::max(plan.views, 1)) +
                     validation * plan.recipe.views.test;
    // A phase stores what the next one's shorter prefix gives.
    planned.stored =
        &phase != &plan.phases.front() && phase.prefix_end > 1 && plan.cache.use && plan.views != 0;
    if (!planned.every_epoch && !planned.stored) planned.flops_each = planned.prefix_flops;
    planned.epochs = phase.epochs;
    planned.epoch_flops = (3 * train + validation) * suffix +
                          (planned.every_epoch ? planned.images * planned.prefix_flops : 0);
    // Adam reads and writes each parameter about ten times.
    planned.epoch_seconds = train / std::max(plan.recipe.optimization.batch_size, 1) *
                            static_cast<double>(plan.memory.parameters) / 4 * 10 / kBytesPerSecond;
    work.phases.push_back(planned);
  }
  const double views = std::max(plan.recipe.views.test, 1);
  work.evaluated = (validation + test) * views;
  // Features of validation images are in the cache by then.
  work.evaluation_flops = (test * all + validation * (plan.cache.use ? suffix : all)) * views;
  return work;
}

void RunForecast::stage(TrainStage stage, int epochs_made) {
  if (!work_.phases.empty()) rate_ = rate(phase_of(epochs_made), std::nullopt);
  stage_ = stage;
  done_ = computed_ = seconds_ = 0;
  task_.clear();
  task_done_ = 0;
}

void RunForecast::progress(const ProgressUpdate& u, Clock::time_point now) {
  if (u.unit != "images" || (stage_ != TrainStage::features && stage_ != TrainStage::evaluation))
    return;
  if (task_ != u.task) {
    task_ = u.task;
    task_done_ = 0;
    last_ = now;
  }
  const auto more = static_cast<double>(u.done - std::min(task_done_, u.done));
  task_done_ = u.done;
  done_ += more;
  if (!task_.ends_with("from the cache")) {
    computed_ += more;
    seconds_ += std::chrono::duration<double>(now - last_).count();
  }
  last_ = now;
  if (u.ended) task_.clear();
}

size_t RunForecast::phase_of(int epochs_made) const {
  int end = 0;
  for (size_t k = 0; k < work_.phases.size(); ++k)
    if ((end += work_.phases[k].epochs) > epochs_made) return k;
  return work_.phases.empty() ? 0 : work_.phases.size() - 1;
}

double RunForecast::total(int epochs_made) const {
  if (stage_ == TrainStage::evaluation) return work_.evaluated;
  if (stage_ != TrainStage::features || work_.phases.empty()) return 0;
  return work_.phases[phase_of(epochs_made)].images;
}

std::optional<double> RunForecast::stage_seconds_left(int epochs_made) const {
  if (seconds_ < kLeastSeconds || computed_ <= 0) return std::nullopt;
  return std::max(0.0, total(epochs_made) - done_) * seconds_ / computed_;
}

/// Operations a second: of this stage's images, or as it was before, or of the epochs where these
/// are the whole network's: those of a small head say nothing of convolutions.
std::optional<double> RunForecast::rate(size_t phase, std::optional<double> epoch_seconds) const {
  const PlannedWork::Phase& planned = work_.phases[phase];
  if (stage_ == TrainStage::features && seconds_ >= kLeastSeconds && computed_ > 0 &&
      planned.flops_each > 0)
    return computed_ * planned.flops_each / seconds_;
  if (rate_) return rate_;
  if (planned.flops_each == 0 && epoch_seconds && *epoch_seconds > 0 && planned.epoch_flops > 0)
    return planned.epoch_flops / *epoch_seconds;
  return std::nullopt;
}

std::optional<double> RunForecast::seconds_left(int epochs_made, std::optional<double> of_phase,
                                                std::optional<double> epoch_seconds) const {
  if (!stage_ || work_.phases.empty()) return std::nullopt;
  if (stage_ == TrainStage::report) return 0;
  const size_t now = phase_of(epochs_made);
  const std::optional<double> speed = rate(now, epoch_seconds);
  if (stage_ == TrainStage::evaluation) {
    if (const std::optional<double> left = stage_seconds_left(epochs_made)) return left;
    if (!speed || work_.evaluated <= 0) return std::nullopt;
    return work_.evaluation_flops / *speed * std::max(0.0, 1 - done_ / work_.evaluated);
  }
  if (!speed) return of_phase;
  double left = work_.evaluation_flops / *speed;
  int begun = 0;  // epochs of the phases before
  for (size_t k = 0; k < work_.phases.size(); begun += work_.phases[k].epochs, ++k) {
    const PlannedWork::Phase& phase = work_.phases[k];
    if (k < now) continue;
    const double epoch = phase.epoch_flops / *speed + phase.epoch_seconds;
    if (k > now) {
      left += phase.images * phase.flops_each / *speed + phase.epochs * epoch;
      continue;
    }
    if (stage_ == TrainStage::features)
      left += stage_seconds_left(epochs_made)
                  .value_or(std::max(0.0, phase.images - done_) * phase.flops_each / *speed);
    left += of_phase && stage_ == TrainStage::training
                ? *of_phase
                : std::max(0, begun + phase.epochs - epochs_made) * epoch;
  }
  return left;
}

}  // namespace graft
