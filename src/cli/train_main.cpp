// The program `graft-train`, which `graft train` becomes: the whole of training.
#include <cmath>
#include <memory>
#include <optional>

#include "base/diagnostics.h"
#include "base/file.h"
#include "base/signals.h"
#include "cli/run_claim.h"
#include "cli/skipped_images.h"
#include "cli/train_limits.h"
#include "cli/train_options.h"
#include "cli/train_plan.h"
#include "dataset/folders.h"
#include "features/prefix_features.h"
#include "graft/error.h"
#include "model/evaluate.h"
#include "model/model_file.h"
#include "report/chart.h"
#include "report/dashboard.h"
#include "report/live_view.h"
#include "report/metrics.h"
#include "report/predictions.h"
#include "report/report.h"
#include "report/tensorboard.h"
#include "train/trainer.h"
#include "weights/load.h"

namespace graft::cli {
namespace {

constexpr size_t kMostProbabilities = 5'000'000;  // in predictions.csv

TrainConfig make_config(const TrainOptions& o, const TrainPlan& plan) {
  TrainConfig c;
  c.batch_size = o.batch_size;
  c.optimizer = o.optimizer;
  c.augmentation = o.augmentation();
  c.augment = o.augment;
  c.views = plan.views;
  c.lr_decay_per_block = o.lr_decay_per_block;
  c.average = o.ema;
  c.weight_decay = o.weight_decay;
  c.momentum = o.momentum;
  c.schedule = o.schedule;
  c.warmup_epochs = o.warmup_epochs;
  c.label_smoothing = o.label_smoothing;
  c.clip_gradients = o.clip_gradients;
  c.class_weights = o.class_weights;
  c.patience = o.patience_in_effect();
  c.initializer = o.init == "glorot-uniform" ? Initializer::glorot_uniform : Initializer::he_normal;
  c.seed = o.seed;
  c.threads = o.common.thread_count();
  c.device = o.device;
  c.fine_tune = o.network.fine_tune;
  c.verbosity = o.common.verbosity();
  c.resume = !o.resume.empty();
  return c;
}

WeightsRequest make_request(const TrainOptions& o, const Network& network) {
  WeightsRequest request;
  request.weights = o.network.weight_source();
  request.backbone = o.network.backbone;
  request.input_height = network.input_height;
  request.input_width = network.input_width;
  request.seed = o.seed;
  request.cache = cache_folder(o.cache_dir);
  request.verbosity = o.common.verbosity();
  return request;
}

/// Files of an earlier run that --force replaces.
void clear_run(const fs::path& run) {
  std::error_code error;
  for (const char* name :
       {"model.safetensors", "history.csv", "metrics.json", "config.toml", "split.csv",
        "predictions.csv", "skipped.csv", "report.html", "find-lr.csv", "find-lr.svg",
        "checkpoints/best.safetensors", "checkpoints/last.safetensors",
        "checkpoints/state.safetensors", "checkpoints/state-previous.safetensors",
        "checkpoints/state-damaged.safetensors"})
    fs::remove(run / name, error);
  if (!fs::is_directory(run, error)) return;
  for (const fs::path& entry : list_folder(run))
    if (entry.filename().string().starts_with("events.out.tfevents.")) fs::remove(entry, error);
}

/// What features are rounded to: as the cache stores them, even where it cannot be had.
CacheDtype cache_dtype(const TrainOptions& o) {
  return !o.no_cache && o.cache_dtype == "fp16" ? CacheDtype::fp16 : CacheDtype::fp32;
}

/// The feature cache, or nothing where it is not wanted or cannot be had: then everything is
/// computed, which is slow but right.
std::unique_ptr<FeatureCache> open_cache(const TrainOptions& o) {
  if (o.no_cache) return nullptr;
  const fs::path folder = cache_folder(o.cache_dir) / "features";
  try {
    if (const uint64_t bytes = FeatureCache::remove_earlier_format(folder); bytes > 0)
      print_diagnostic("graft: {}: removed {} of features in an earlier version's format\n",
                       printable(folder), format_bytes(static_cast<double>(bytes)));
    return std::make_unique<FeatureCache>(folder, static_cast<uint64_t>(o.cache_limit * 1e9));
  } catch (const Error& error) {
    print_diagnostic("graft: going on without the cache: {}\n", error.what());
    return nullptr;
  }
}

/// Predictions on a split under a saved model, its prefix's features from the cache where they are.
Predictions predict_split(const TrainPlan& plan, const TrainOptions& o, FeatureCache* cache,
                          const ModelFile& model, Split split, SkippedImages& skipped) {
  const Network& net = model.metadata.network;
  const std::vector<size_t> indices = plan.dataset.of(split);
  const std::vector<Sample> samples = join_labels(plan.dataset, indices, model.metadata.classes);
  std::vector<std::filesystem::path> paths;
  paths.reserve(samples.size());
  for (const Sample& sample : samples) paths.push_back(sample.path);
  EngineOptions options;
  options.threads = o.common.thread_count();
  options.single_plan = false;
  const size_t prefix_end = plan.phases.back().prefix_end;
  Engine suffix(net, prefix_end, net.layers.size(), model.tensors, options);
  // In batches, and counted in the order of the samples.
  const size_t classes = model.metadata.classes.size();
  std::vector<float> logits(samples.size() * classes);
  std::vector<bool> good(samples.size());
  Batcher batcher(forward_of(suffix), suffix.max_batch(),
                  [&](size_t i, std::span<const float> values) {
                    std::copy(values.begin(), values.end(), &logits[i * classes]);
                    good[i] = true;
                  });
  const ImageJob pictures{.paths = paths,
                          .height = net.input_height,
                          .width = net.input_width,
                          .preprocessing = model.metadata.preprocessing,
                          .threads = o.common.thread_count(),
                          .batch = suffix.max_batch(),
                          .label = fmt::format("evaluating, {}", to_string(split)),
                          .verbosity = o.common.verbosity()};
  prefix_features(
      {net, prefix_end, model.tensors, cache, cache_dtype(o)}, pictures,
      [&](size_t i, std::span<const float> values) { batcher.add(i, values); },
      [&](size_t i, const std::string& message) { skipped.add(indices[i], message); });
  batcher.flush();
  Predictions out{model.metadata.classes, {}, {}};
  for (size_t i = 0; i < samples.size(); ++i)
    if (good[i]) out.add(samples[i], {&logits[i * classes], classes});
  if (out.samples.empty() && split == Split::validation)
    fail(ErrorKind::input,
         "none of the {} validation images can be read any longer; {} is trained, but not "
         "calibrated",
         samples.size(), printable(plan.run / "model.safetensors"));
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
             "--lr");
    }
    tensor = Tensor(tensor.shape(), std::move(values));
  }
  model.metadata.training["temperature"] = temperature;
  return model;
}

/// What the run says of its model once training is over: calibration, metrics, predictions, report.
nlohmann::json conclude(const TrainPlan& plan, const TrainOptions& o, FeatureCache* cache,
                        const TrainResult& result, SkippedImages& skipped, TensorBoard& events) {
  const fs::path model_file = plan.run / "model.safetensors";
  ModelFile model = read_model(model_file);
  Predictions val = predict_split(plan, o, cache, model, Split::validation, skipped);
  const Metrics raw = val.measure();
  std::vector<int> labels;
  for (const Sample& sample : val.samples) labels.push_back(sample.label);
  const auto [temperature, at_bound] = fit_temperature(val.logits, labels, val.classes.size());
  if (at_bound && !o.common.quiet)
    print_diagnostic(
        "note: calibration: no temperature from {:g} to {:g} fits the validation images best; "
        "{:g} was taken, and probabilities may still be far from the truth\n",
        1 / kWidestTemperature, kWidestTemperature, temperature);
  model = with_temperature(std::move(model), temperature);
  write_model(model_file, model);
  for (float& logit : val.logits) logit = static_cast<float>(logit / temperature);

  const Metrics val_metrics = val.measure();
  events.confusion("validation", val_metrics);
  nlohmann::json metrics = {{"epochs", result.history.size()},
                            {"best_epoch", result.best_epoch},
                            {"stopped_early", result.stopped_early},
                            {"calibration",
                             {{"temperature", temperature},
                              {"at_bound", at_bound},
                              {"uncalibrated_validation", {{"loss", raw.loss}, {"ece", raw.ece}}}}},
                            {"validation", metrics_json(val_metrics, val.classes)}};
  // With a thousand classes all probabilities would be a gigabyte.
  const bool whole = plan.dataset.samples.size() * val.classes.size() <= kMostProbabilities;
  std::string predictions = predictions_csv(val, "val", true, whole);
  std::optional<Predictions> test;
  std::optional<Metrics> test_metrics;
  if (plan.dataset.has(Split::test)) {
    test = predict_split(plan, o, cache, model, Split::test, skipped);
    test_metrics = test->measure();
  }
  if (test && test_metrics->images > 0) {
    metrics["test"] = metrics_json(*test_metrics, test->classes);
    events.confusion("test", *test_metrics);
    predictions += predictions_csv(*test, "test", false, whole);
  }
  metrics["skipped"] = skipped.lines();
  write_file_atomic(plan.run / "predictions.csv", predictions);
  write_file_atomic(plan.run / "metrics.json",
                    metrics.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
  if (!o.no_report) {
    const std::string command = fmt::format("graft train {} --config {}", shell_quoted(o.data),
                                            shell_quoted((plan.run / "config.toml").string()));
    const bool tested = test && test_metrics->images > 0;
    write_file_atomic(
        plan.run / "report.html",
        report_page({model, tested ? *test : val, tested ? *test_metrics : val_metrics,
                     tested ? "test" : "val", plan.dataset, read_run_folder(plan.run), command,
                     o.common.thread_count(), o.common.verbosity()}));
  }
  return metrics;
}

TrainJob make_job(const TrainOptions& o, const TrainPlan& plan, FeatureCache* cache,
                  Weights weights) {
  return {plan.dataset,
          plan.phases,
          cache,
          cache_dtype(o),
          plan.run,
          {plan.network, plan.dataset.classes, weights.preprocessing, weights.provenance},
          std::move(weights.tensors)};
}

/// --find-lr: find-lr.csv and find-lr.svg in the run folder, and a suggestion.
int find_lr(const TrainOptions& o, const TrainPlan& plan, const TrainConfig& config,
            Weights weights) {
  const std::unique_ptr<FeatureCache> cache = open_cache(o);
  const std::vector<RatePoint> points =
      find_learning_rate(make_job(o, plan, cache.get(), std::move(weights)), config);
  if (points.empty())
    fail(ErrorKind::input,
         "--find-lr: the loss is not finite even at the least rate; look at the images with 'graft "
         "check', or take other --weights");
  const std::optional<double> rate = suggested_rate(points);
  std::string csv = "learning_rate,loss\n";
  Chart chart{
      "Learning-rate range test", "learning rate", "training loss (smoothed)", true, {}, {}};
  chart.series.push_back({"loss", {}});
  for (const RatePoint& point : points) {
    csv += fmt::format("{:.6g},{:.6f}\n", point.rate, point.loss);
    chart.series[0].points.emplace_back(point.rate, point.loss);
  }
  if (rate) chart.marks.emplace_back(*rate, fmt::format("suggested: {:.2g}", *rate));
  write_file_atomic(plan.run / "find-lr.csv", csv);
  write_file_atomic(plan.run / "find-lr.svg", chart_svg(chart));
  if (o.json) {
    nlohmann::json rows = nlohmann::json::array();
    for (const RatePoint& point : points) rows.push_back({point.rate, point.loss});
    print_json({{"suggested_lr", rate ? nlohmann::json(*rate) : nlohmann::json()},
                {"points", rows},
                {"run", plan.run.string()}});
    return 0;
  }
  print_result("{}\nplot: {}\n",
               rate ? fmt::format("suggested: --lr {:.2g}", *rate)
                    : "no suggestion: the loss fell at no rate",
               printable(plan.run / "find-lr.svg"));
  return 0;
}

int run(const TrainOptions& given) {
  TrainOptions o = given;
  const ThreadLimit limit = threads_within_limits(given.common.thread_count());
  o.common.threads = limit.threads;
  TrainPlan plan = make_train_plan(o);
  const RunClaim claim(o);
  plan.run = claim.folder();
  if (!limit.note.empty()) print_diagnostic("graft: {}\n", limit.note);
  if (!o.common.quiet) {
    print_diagnostic("{}\n{}", class_table(plan.dataset), plan_text(plan, o));
    for (const std::string& note : plan.dataset.notes) print_diagnostic("note: {}\n", note);
    print_diagnostic("run        {}\n\n", printable(plan.run));
  }
  TrainConfig config = make_config(o, plan);
  set_training_threads(config.threads);
  if (o.common.verbose) print_diagnostic("{}\n", training_backend());

  std::optional<Dashboard> dashboard;  // first, since its port may be taken
  if (o.dashboard > 0) {
    check_dashboard_threads();
    dashboard.emplace(o.dashboard, fmt::format("{} on {}", o.network.backbone, printable(o.data)));
    config.observers.push_back(&*dashboard);
    if (!o.common.quiet) print_diagnostic("dashboard  http://127.0.0.1:{}/\n\n", o.dashboard);
  }
  const Network base = make_backbone(o.network, /*include_top=*/false);
  Weights weights = load_weights(make_request(o, base), base);
  if (!weights.note.empty() && !o.common.quiet) print_diagnostic("graft: note: {}\n", weights.note);
  SkippedImages skipped(plan, o);
  config.on_read = [&](const auto& samples, const auto& why) { skipped.read(samples, why); };
  if (o.find_lr) return find_lr(o, plan, config, weights);
  // A run that is resumed keeps its files until the options have proved to fit it.
  const fs::path config_file = plan.run / "config.toml";
  if (o.resume.empty()) {
    clear_run(plan.run);
    write_file_atomic(config_file, config_toml(given));
    write_split(plan.dataset, {}, plan.run / "split.csv");
  }

  const std::unique_ptr<FeatureCache> cache = open_cache(o);
  const TrainJob job = make_job(o, plan, cache.get(), std::move(weights));
  LiveView view(o.common.verbosity());
  TensorBoard events(plan.run);
  config.observers.insert(config.observers.end(), {&view, &events});
  const TrainResult result = train(job, config);
  if (!o.resume.empty()) write_file_atomic(config_file, config_toml(given));
  for (size_t k = 0; k < result.excluded.size(); ++k)
    skipped.add(result.excluded[k], result.errors[k]);
  if (!result.excluded.empty() || !o.resume.empty())
    write_split(plan.dataset, result.excluded, plan.run / "split.csv");

  nlohmann::json metrics = conclude(plan, o, cache.get(), result, skipped, events);
  const int code = skipped.finish() ? 0 : 1;
  if (o.json) {
    metrics["run"] = plan.run.string();
    print_json(metrics);
    return code;
  }
  print_result("best epoch {} of {}{}\n", result.best_epoch, result.history.size(),
               result.stopped_early ? " (stopped early)" : "");
  print_result("validation accuracy {:.4f}\n", metrics["validation"]["top1"].get<double>());
  if (metrics.contains("test"))
    print_result("test accuracy {:.4f}\n", metrics["test"]["top1"].get<double>());
  print_result("model: {}\n", printable(plan.run / "model.safetensors"));
  if (!o.no_report) print_result("report: {}\n", printable(plan.run / "report.html"));
  return code;
}

}  // namespace
}  // namespace graft::cli

int main(int argc, char** argv) {
  graft::prepare_standard_streams();
  graft::install_signal_handlers();
  return graft::cli::run_train_app(argc, argv, graft::cli::run);
}
