// The program `graft-train`, which `graft train` becomes: the whole of training.
#include <csignal>

#include "base/file.h"
#include "base/signals.h"
#include "cli/train_options.h"
#include "cli/train_plan.h"
#include "graft/error.h"
#include "model/evaluate.h"
#include "report/metrics.h"
#include "train/trainer.h"
#include "weights/load.h"

namespace graft::cli {
namespace {

TrainConfig make_config(const TrainOptions& o) {
  TrainConfig c;
  c.epochs = o.epochs;
  c.batch_size = o.batch_size;
  c.optimizer = o.optimizer;
  c.learning_rate = o.learning_rate();
  c.weight_decay = o.weight_decay;
  c.momentum = o.momentum;
  c.patience = o.patience;
  c.seed = o.seed;
  c.threads = o.common.thread_count();
  c.device = o.device;
  c.fine_tune = o.network.fine_tune;
  c.verbosity = o.common.verbosity();
  return c;
}

WeightsRequest make_request(const TrainOptions& o, const Network& network) {
  WeightsRequest request;
  request.weights = o.network.weights;
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
        "checkpoints/best.safetensors", "checkpoints/last.safetensors"})
    fs::remove(run / name, error);
}

nlohmann::json split_metrics(const TrainPlan& plan, const TrainOptions& o, Split split) {
  const Classifier classifier = Classifier::load(plan.run, {o.common.thread_count()});
  EvaluateJob job{join_labels(plan.dataset, plan.dataset.of(split), classifier.classes()),
                  o.common.thread_count(), fmt::format("evaluating, {}", to_string(split)),
                  o.common.verbosity()};
  MetricsBuilder builder(classifier.classes().size());
  evaluate(
      job, classifier,
      [&](const Sample& sample, std::span<const float> logits) {
        builder.add(logits, sample.label);
      },
      [&](const Sample&, const std::string& message) {
        if (split == Split::test) fmt::print(stderr, "graft: skipped: {}\n", message);
      });
  return metrics_json(builder.finish(), classifier.classes());
}

int run(const TrainOptions& o) {
  TrainPlan plan = make_train_plan(o);
  if (!o.common.quiet) {
    fmt::print(stderr, "{}\n{}", class_table(plan.dataset), plan_text(plan, o));
    for (const std::string& note : plan.dataset.notes) fmt::print(stderr, "note: {}\n", note);
    fmt::print(stderr, "run        {}\n\n", printable(plan.run));
  }
  const TrainConfig config = make_config(o);
  set_training_threads(config.threads);
  if (o.common.verbose) fmt::print(stderr, "{}\n", training_backend());

  const Network base = make_backbone(o.network, /*include_top=*/false);
  Weights weights = load_weights(make_request(o, base), base);
  make_folder(plan.run);
  clear_run(plan.run);
  write_file_atomic(plan.run / "config.toml", config_toml(o));
  write_split(plan.dataset, {}, plan.run / "split.csv");

  const TrainJob job{
      plan.dataset,
      plan.prefix_end,
      plan.keep_features,
      plan.run,
      {plan.network, plan.dataset.classes, weights.preprocessing, weights.provenance},
      std::move(weights.tensors)};
  const TrainResult result = train(job, config);
  for (const std::string& error : result.errors) fmt::print(stderr, "graft: skipped: {}\n", error);
  if (!result.excluded.empty()) write_split(plan.dataset, result.excluded, plan.run / "split.csv");

  nlohmann::json metrics = {{"epochs", result.history.size()},
                            {"best_epoch", result.best_epoch},
                            {"stopped_early", result.stopped_early},
                            {"skipped", result.errors},
                            {"validation", split_metrics(plan, o, Split::validation)}};
  if (plan.dataset.has(Split::test)) metrics["test"] = split_metrics(plan, o, Split::test);
  write_file_atomic(plan.run / "metrics.json",
                    metrics.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
  if (o.json) {
    metrics["run"] = plan.run.string();
    print_json(metrics);
    return 0;
  }
  fmt::print("best epoch {} of {}{}\n", result.best_epoch, result.history.size(),
             result.stopped_early ? " (stopped early)" : "");
  fmt::print("validation accuracy {:.4f}\n", metrics["validation"]["top1"].get<double>());
  if (metrics.contains("test"))
    fmt::print("test accuracy {:.4f}\n", metrics["test"]["top1"].get<double>());
  fmt::print("model: {}\n", printable(plan.run / "model.safetensors"));
  return 0;
}

}  // namespace
}  // namespace graft::cli

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  graft::install_signal_handlers();
  return graft::cli::run_train_app(argc, argv, graft::cli::run);
}
