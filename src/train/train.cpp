// The public functions that train: graft/train.h.
#include <map>
#include <memory>
#include <set>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "dataset/split_file.h"
#include "graft/labels.h"
#include "graft/train.h"
#include "report/chart.h"
#include "report/kept_epoch.h"
#include "report/tensorboard.h"
#include "run/conclude.h"
#include "run/judge_labels.h"
#include "run/keep_head.h"
#include "run/learned.h"
#include "run/load_backbone.h"
#include "run/prepare.h"
#include "run/run_claim.h"
#include "run/run_config.h"
#include "run/run_folder.h"
#include "run/skipped_images.h"
#include "run/stage_clock.h"
#include "train/compact.h"
#include "train/group.h"
#include "train/trainer.h"
#include "weights/load.h"

namespace graft {
namespace {

TrainJob make_job(const TrainPlan& plan, FeatureCache* cache, const ComputeDevice* device,
                  const std::filesystem::path& run, Weights weights, const RunContext& context) {
  return {.dataset = plan.dataset,
          .recipe = plan.recipe,
          .phases = plan.phases,
          .views = plan.views,
          .cache = cache,
          .feature_type = plan.feature_type,
          .device = device,
          .run = run,
          .metadata = {plan.network, plan.dataset.classes, weights.preprocessing,
                       weights.provenance, nlohmann::json::object(), plan.recipe.views.test},
          .backbone = std::move(weights.tensors),
          .context = context};
}

/// Before a run's folder is emptied: decisions of a person on labels are no file of a run.
void keep_decisions(const TrainPlan& plan, const fs::path& folder) {
  const fs::path review = folder / run_files::kReview;
  require_review_replaceable(plan.dataset, review);
  std::error_code error;
  if (plan.dataset.corrections.empty() || !same_file(review, plan.dataset.corrections))
    fs::remove(review, error);
}

/// Labels that are probably wrong, by the layers that are frozen; where those are too few, by the
/// backbone that the run began with.
std::optional<LabelCheck> look_at_labels(const TrainPlan& plan, const TrainJob& job,
                                         const fs::path& folder, const RunContext& context) {
  JudgingBackbone backbone{
      plan.network,      std::min(backbone_end(plan.network), plan.phases.back().prefix_end),
      job.backbone,      job.metadata.preprocessing,
      plan.feature_type, plan.recipe.precision,
      job.device,        keeps_head(plan.recipe) || trained_on_labels(job.metadata.provenance)};
  if (!judges_well(backbone.network, backbone.end)) backbone.end = backbone_end(plan.network);
  try {
    LabelCheck found = judge_labels(plan.dataset, backbone, job.cache, plan.recipe.seed, context);
    for (const std::string& note : found.notes) context.tell(Severity::note, "labels: " + note);
    write_review(plan.dataset, found, folder / run_files::kReview);
    return found;
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::input) throw;
    context.tell(Severity::warning, fmt::format("labels are not checked: {}", error.what()));
    return std::nullopt;
  }
}

/// Class folder and name: the images' root may have moved.
fs::path within_class(const fs::path& path) {
  return path.parent_path().filename() / path.filename();
}

/// The training state knows images by their paths, split.csv by what they are.
void require_same_images(const Dataset& dataset, const fs::path& folder) {
  std::error_code error;
  if (!fs::exists(folder / run_files::kSplit, error)) return;
  std::set<std::string> contents;
  std::map<fs::path, std::set<std::string>> at;
  std::set<fs::path> unread;  // then: whatever is there now is as good
  for (const SplitRow& row : read_split(folder / run_files::kSplit)) {
    if (row.content.empty()) {
      unread.insert(within_class(row.path));
      continue;
    }
    contents.insert(row.content);
    at[within_class(row.path)].insert(row.content);
  }
  if (contents.empty()) return;  // a run of an earlier version
  const auto was_there = [&](const Sample& sample) {
    const auto same_name = at.find(within_class(sample.path));
    return same_name != at.end() ? same_name->second.contains(sample.content)
                                 : contents.contains(sample.content);
  };
  size_t others = 0;
  const Sample* first = nullptr;
  std::set<std::string> gone = contents;
  for (const Sample& sample : dataset.samples) {
    gone.erase(sample.content);
    if (sample.content.empty() || unread.contains(within_class(sample.path)) || was_there(sample))
      continue;
    if (others++ == 0) first = &sample;
  }
  if (others > 0)
    fail(ErrorKind::input,
         "{}: {} not what {} when this run began, the first: {}; put back what was there, or go on "
         "from what the run has learned with `from`",
         printable(folder), others == 1 ? "an image is" : fmt::format("{} images are", others),
         others == 1 ? "it was" : "they were", printable(first->path));
  // Later a state says which images there were.
  if (!gone.empty() && !fs::exists(folder / run_files::kState, error))
    fail(ErrorKind::input,
         "{}: {} of this run's {} images are not in {}; put them back, or begin anew with `force`",
         printable(folder), gone.size(), contents.size(), printable(dataset.root));
}

RunConfig config_of(const TrainPlan& plan, const RunOptions& options) {
  RunConfig config;
  config.recipe = plan.recipe;
  config.data = plan.dataset.root.string();
  config.val = plan.dataset.validation.string();
  config.test = plan.dataset.test.string();
  config.corrections = plan.dataset.corrections.string();
  config.cache_dir = plan.cache.folder.string();
  config.cache_limit = plan.cache.limit / 1e9;
  config.no_cache = !plan.cache.use;
  config.no_report = !options.report;
  config.check_labels = options.check_labels;
  config.compression = options.compression;
  return config;
}

std::shared_ptr<const ComputeDevice> device_of(const TrainPlan& plan, const Group* group) {
  return open_device(plan.recipe.device, group != nullptr ? group->place().local_rank : 0);
}

/// A process of a group that is not rank 0: it trains, and writes nothing.
Run follow(const TrainPlan& plan, const ComputeDevice* device, const std::filesystem::path& folder,
           const RunOptions& options, const RunContext& context, RunMode mode) {
  const std::unique_ptr<FeatureCache> cache = open_cache(plan.cache, context);
  TrainJob job = make_job(plan, cache.get(), device, folder, load_backbone(plan, context), context);
  job.resume = mode == RunMode::resume;
  job.group = options.group;
  job.compression = options.compression;
  job.context.stop = options.group->stop();
  const TrainResult result = run_training(job);
  options.group->leave();
  Run run;
  run.folder = folder;
  run.history = result.history;
  run.best_epoch = result.best_epoch;
  run.stopped_early = result.stopped_early;
  return run;
}

Run run_whole(const TrainPlan& plan, const std::filesystem::path& folder, const RunOptions& options,
              const RunContext& context, RunMode mode) {
  check_plan(plan);
  context.check_stop();  // before anything is replaced
  const std::shared_ptr<const ComputeDevice> device = device_of(plan, options.group);
  if (options.group != nullptr && !options.group->is_first())
    return follow(plan, device.get(), folder, options, context, mode);
  if (options.group == nullptr && options.compression != GradientCompression::none)
    context.tell(Severity::note,
                 "note: `gradient-compression`: one process sends no gradients and rounds none");
  const RunClaim claim(folder, mode, context);
  const bool resumed = mode == RunMode::resume;
  if (resumed) require_same_images(plan.dataset, folder);
  if (!resumed || options.check_labels)
    require_review_replaceable(plan.dataset, folder / run_files::kReview);
  StageClock clock(folder, resumed, context);
  Weights weights = load_backbone(plan, context);
  SkippedImages skipped(plan, folder, context);
  const std::string config = to_toml(config_of(plan, options));
  // A run that is resumed keeps its files until the options have proved to fit it.
  if (!resumed) {
    keep_decisions(plan, folder);
    clear_run(folder);
    write_file_atomic(folder / run_files::kConfig, config);
    if (!plan.dataset.corrections.empty())
      write_file_atomic(folder / run_files::kCorrections, plan.dataset.decisions.empty()
                                                              ? std::string(kReviewHeader)
                                                              : plan.dataset.decisions);
    write_split(plan.dataset, {}, folder / run_files::kSplit);
    write_learned_before(plan.recipe, folder);
  }
  const std::unique_ptr<FeatureCache> cache = open_cache(plan.cache, context);
  TrainJob job = make_job(plan, cache.get(), device.get(), folder, std::move(weights), context);
  job.resume = resumed;
  for (TrainObserver* observer : options.observers)
    if (observer != nullptr) job.observers.push_back(observer);
  job.observers.push_back(&clock);
  job.on_read = [&](const auto& samples, const auto& why) { skipped.read(samples, why); };
  TensorBoard events(folder);
  job.observers.push_back(&events);
  job.group = options.group;
  job.compression = options.compression;
  if (options.group != nullptr) job.context.stop = options.group->stop();
  const TrainResult result = run_training(job);
  if (options.group != nullptr) options.group->leave();
  job.context.stop = context.stop;
  if (resumed) write_file_atomic(folder / run_files::kConfig, config);
  for (size_t k = 0; k < result.excluded.size(); ++k)
    skipped.add(result.excluded[k], result.errors[k]);
  if (!result.excluded.empty() || resumed)
    write_split(plan.dataset, result.excluded, folder / run_files::kSplit);
  std::optional<LabelCheck> labels;
  if (options.check_labels) labels = look_at_labels(plan, job, folder, context);
  Run run;
  if (labels) run.doubtful_labels = labels->doubtful;
  run.folder = folder;
  run.history = result.history;
  run.best_epoch = result.best_epoch;
  run.stopped_early = result.stopped_early;
  run.metrics = conclude(
      plan, folder, cache.get(), device.get(),
      {result.history, result.best_epoch, result.stopped_early}, skipped,
      labels ? &*labels : nullptr, options.report,
      [&](TrainStage stage) {
        for (TrainObserver* observer : job.observers) observer->stage(stage);
      },
      [&](const std::string& split, const Metrics& m) {
        events.confusion(split, m);
        if (split == "test")
          run.test = m;
        else
          run.validation = m;
      },
      context);
  run.test_is_whole = skipped.finish();
  compact_run(folder, plan, run);
  for (TrainObserver* observer : job.observers) observer->finished(run);
  if (const std::string why = why_kept(run.history, run.best_epoch); !why.empty())
    context.tell(Severity::info, fmt::format("kept: epoch {}, {}", run.best_epoch, why));
  return run;
}

}  // namespace

Run train(const TrainPlan& plan, const std::filesystem::path& folder, const RunOptions& options,
          const RunContext& context) {
  return run_whole(plan, folder, options, context,
                   options.replace ? RunMode::replace : RunMode::fresh);
}

Run resume(const TrainPlan& plan, const std::filesystem::path& folder, const RunOptions& options,
           const RunContext& context) {
  return run_whole(plan, folder, options, context, RunMode::resume);
}

Run resume(const std::filesystem::path& folder, const RunContext& context,
           const std::vector<TrainObserver*>& observers) {
  RunSettings settings = run_settings(folder);
  keep_own_split(settings.recipe, folder);
  if (settings.data.empty())
    fail(ErrorKind::input, "{}: a run of an earlier version, which does not say where its data is",
         printable(folder));
  require_precision_of(folder, settings.recipe);
  RunOptions options;
  options.report = settings.report;
  options.check_labels = settings.check_labels;
  options.observers = observers;
  Dataset data = open_dataset(settings.data, settings.validation, settings.test, context);
  if (!settings.corrections.empty()) {
    apply_corrections(data, settings.corrections);
    data.corrections = read_run_config(folder).corrections;  // its name, not that of the copy
  }
  return resume(plan(std::move(data), settings.recipe, settings.cache, context), folder, options,
                context);
}

std::vector<RatePoint> find_learning_rate(const TrainPlan& plan, const RunContext& context) {
  const std::unique_ptr<FeatureCache> cache = open_cache(plan.cache, context);
  const std::shared_ptr<const ComputeDevice> device = device_of(plan, nullptr);
  return run_range_test(
      make_job(plan, cache.get(), device.get(), {}, load_backbone(plan, context), context));
}

std::vector<RatePoint> find_learning_rate(const TrainPlan& plan,
                                          const std::filesystem::path& folder,
                                          const RunOptions& options, const RunContext& context) {
  const RunClaim claim(folder, options.replace ? RunMode::replace : RunMode::fresh, context);
  std::vector<RatePoint> points = find_learning_rate(plan, context);
  if (points.empty())
    fail(ErrorKind::input,
         "`find-lr`: the loss is not finite even at the least rate; look at the images with 'graft "
         "check', or take other `weights`");
  std::string csv = "learning_rate,loss\n";
  Chart chart{
      "Learning-rate range test", "learning rate", "training loss (smoothed)", true, {}, {}};
  chart.series.push_back({"loss", {}});
  for (const RatePoint& point : points) {
    csv += fmt::format("{:.6g},{:.6f}\n", point.rate, point.loss);
    chart.series[0].points.emplace_back(point.rate, point.loss);
  }
  if (const std::optional<double> rate = suggested_rate(points))
    chart.marks.emplace_back(*rate, fmt::format("suggested: {:.2g}", *rate));
  write_file_atomic(folder / run_files::kRates, csv);
  write_file_atomic(folder / run_files::kRateChart, chart_svg(chart));
  return points;
}

}  // namespace graft
