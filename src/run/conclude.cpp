#include "run/conclude.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <vector>

#include "base/fail.h"
#include "base/file.h"
#include "base/progress.h"
#include "base/words.h"
#include "dataset/join_labels.h"
#include "features/batcher.h"
#include "features/prefix_features.h"
#include "model/logits.h"
#include "model/model_file.h"
#include "recipe/option_values.h"
#include "report/predictions.h"
#include "report/report.h"
#include "run/calibrate.h"
#include "run/changes.h"
#include "run/learned.h"
#include "run/run_folder.h"

namespace graft {
namespace {

constexpr size_t kMostProbabilities = 5'000'000;  // in predictions.csv

/// Predictions on a split under a saved model, its prefix's features from the cache where they are.
Predictions predict_split(const TrainPlan& plan, FeatureCache* cache, const ComputeDevice* device,
                          const ModelFile& model, Split split, SkippedImages& skipped,
                          const RunContext& context) {
  const Network& net = model.metadata.network;
  const std::vector<size_t> indices = plan.dataset.of(split);
  const std::vector<Sample> samples = join_labels(plan.dataset, indices, model.metadata.classes);
  std::vector<std::filesystem::path> paths;
  paths.reserve(samples.size());
  for (const Sample& sample : samples) paths.push_back(sample.path);
  engine::EngineOptions options;
  options.threads = context.thread_count();
  options.single_plan = false;
  const size_t prefix_end = plan.phases.back().prefix_end;
  const std::unique_ptr<engine::Executor> suffix =
      engine::make_executor(device, net, prefix_end, net.layers.size(), model.tensors, options);
  // In batches, and counted in the order of the samples.
  const size_t classes = model.metadata.classes.size();
  std::vector<float> logits(samples.size() * classes);
  std::vector<int> views(samples.size());  // that were computed
  Batcher batcher(forward_of(*suffix), suffix->max_batch(),
                  [&](size_t i, std::span<const float> values) {
                    const std::span<float> row(&logits[i * classes], classes);
                    if (views[i]++ == 0)
                      std::copy(values.begin(), values.end(), row.begin());
                    else
                      average_views(row, values);
                  });
  ImageJob images{.paths = paths,
                  .height = net.input_height,
                  .width = net.input_width,
                  .preprocessing = model.metadata.preprocessing,
                  .batch = suffix->max_batch(),
                  .label = fmt::format("evaluating, {}", to_string(split)),
                  .context = context};
  for (int view = 0; view < model.metadata.test_views; ++view) {
    if (view > 0) images.view = [](const std::string&) { return View{.hflip = true}; };
    prefix_features(
        {net, prefix_end, model.tensors, cache, plan.feature_type, plan.recipe.precision, 0,
         device},
        images, [&](size_t i, std::span<const float> values) { batcher.add(i, values); },
        [&](size_t i, const std::string& message) {
          if (view == 0) skipped.add(indices[i], message);
        });
    batcher.flush();
  }
  Predictions out{model.metadata.classes, {}, {}};
  for (size_t i = 0; i < samples.size(); ++i)
    if (views[i] > 0) out.add(samples[i], {&logits[i * classes], classes});
  if (out.samples.empty() && split == Split::validation)
    fail(ErrorKind::input,
         "none of the {} validation images can be read any longer, so that the model cannot be "
         "calibrated; checkpoints/best.safetensors holds it as it was trained",
         samples.size());
  return out;
}

/// The model with its last layer divided by the temperature, so that whatever runs it, here or
/// elsewhere, gives calibrated probabilities.
ModelFile with_temperature(ModelFile model, double temperature) {
  const std::string last = model.metadata.network.layers.back().name;
  for (const char* role : {".weight", ".bias"}) {
    Tensor& tensor = model.tensors.at(last + role);
    std::vector<float> values(tensor.values().begin(), tensor.values().end());
    for (float& value : values) {
      value = static_cast<float>(value / temperature);
      if (!std::isfinite(value))
        fail(ErrorKind::input,
             "the last layer's weights are too large to be calibrated; train again with a smaller "
             "`lr`");
    }
    tensor = Tensor(tensor.shape(), std::move(values));
  }
  model.metadata.training["temperature"] = temperature;
  return model;
}

/// For the report of a run that goes on from another.
std::string changes(const TrainPlan& plan) {
  const std::optional<fs::path> run = earlier_run(plan.recipe);
  return run ? changes_html(changes_since(*run, plan.dataset)) : "";
}

}  // namespace

std::string conclude(const TrainPlan& plan, const std::filesystem::path& run, FeatureCache* cache,
                     const ComputeDevice* device, const Training& training, SkippedImages& skipped,
                     const LabelCheck* label_check, bool report,
                     const std::function<void(TrainStage)>& on_stage,
                     const std::function<void(const std::string& split, const Metrics&)>& on_split,
                     const RunContext& context) {
  on_stage(TrainStage::evaluation);
  ModelFile model = read_model(run / run_files::kBest);
  Predictions val = predict_split(plan, cache, device, model, Split::validation, skipped, context);
  const Metrics raw = val.measure();
  std::vector<int> labels;
  for (const Sample& sample : val.samples) labels.push_back(sample.label);
  const auto [temperature, at_bound] = fit_temperature(val.logits, labels, val.classes.size());
  if (at_bound)
    context.tell(Severity::info,
                 fmt::format("note: calibration: no temperature from {:g} to {:g} fits the "
                             "validation images best; {:g} was taken, and probabilities may still "
                             "be far from the truth",
                             1 / kWidestTemperature, kWidestTemperature, temperature));
  model = with_temperature(std::move(model), temperature);
  write_model(run / run_files::kModel, model);
  for (float& logit : val.logits) logit = static_cast<float>(logit / temperature);

  const Metrics val_metrics = val.measure();
  on_split("validation", val_metrics);
  nlohmann::json metrics = {{"epochs", training.history.size()},
                            {"best_epoch", training.best_epoch},
                            {"stopped_early", training.stopped_early},
                            {"precision", options::word(plan.recipe.precision)},
                            {"calibration",
                             {{"temperature", temperature},
                              {"at_bound", at_bound},
                              {"uncalibrated_validation", {{"loss", raw.loss}, {"ece", raw.ece}}}}},
                            {"validation", metrics_document(val_metrics, val.classes)}};
  Contents learned = learned_before(run);
  for (const size_t i : plan.dataset.of(Split::train))
    learned.insert(plan.dataset.samples[i].content);
  learned.erase("");  // of files that could not be read
  size_t trained_on = count_learned(val.samples, learned);
  metrics["validation"]["trained_on"] = trained_on;
  // With a thousand classes all probabilities would be a gigabyte.
  const bool whole = plan.dataset.samples.size() * val.classes.size() <= kMostProbabilities;
  std::string predictions = predictions_csv(val, "val", true, whole);
  std::optional<Predictions> test;
  std::optional<Metrics> test_metrics;
  if (plan.dataset.has(Split::test)) {
    test = predict_split(plan, cache, device, model, Split::test, skipped, context);
    test_metrics = test->measure();
  }
  if (test && test_metrics->images > 0) {
    metrics["test"] = metrics_document(*test_metrics, test->classes);
    trained_on = count_learned(test->samples, learned);
    metrics["test"]["trained_on"] = trained_on;
    on_split("test", *test_metrics);
    predictions += predictions_csv(*test, "test", false, whole);
  }
  metrics["skipped"] = skipped.lines();
  if (label_check != nullptr)
    metrics["labels"] = {{"judged", label_check->ranking.size()},
                         {"doubtful", label_check->doubtful},
                         {"noise", label_check->share}};
  write_file_atomic(run / run_files::kPredictions, predictions);
  std::string text = metrics.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  write_file_atomic(run / run_files::kMetrics, text);
  if (report) {
    on_stage(TrainStage::report);
    const std::string command =
        fmt::format("graft train {} --config {}", shell_quoted(plan.dataset.root.string()),
                    shell_quoted((run / run_files::kConfig).string()));
    const bool tested = test && test_metrics->images > 0;
    write_file_atomic(run / run_files::kReport,
                      report_page({model, tested ? *test : val,
                                   tested ? *test_metrics : val_metrics, tested ? "test" : "val",
                                   plan.dataset, read_run_folder(run), command, trained_on, context,
                                   plan.recipe.precision, changes(plan), label_check, true}));
  }
  return text;
}

std::unique_ptr<FeatureCache> open_cache(const CacheOptions& options, const RunContext& context) {
  if (!options.use) return nullptr;
  const fs::path folder = feature_cache_folder(options.folder);
  try {
    if (const uint64_t bytes = FeatureCache::remove_earlier_format(folder); bytes > 0)
      context.tell(Severity::warning,
                   fmt::format("{}: removed {} of features in an earlier version's format",
                               printable(folder), format_bytes(static_cast<double>(bytes))));
    return std::make_unique<FeatureCache>(folder, static_cast<uint64_t>(options.limit), context);
  } catch (const Error& error) {
    context.tell(Severity::warning, fmt::format("going on without the cache: {}", error.what()));
    return nullptr;
  }
}

}  // namespace graft
