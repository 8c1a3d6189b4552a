// graft evaluate: metrics of a model on labelled images.
#include "graft/evaluate.h"

#include <optional>

#include "base/diagnostics.h"
#include "base/fail.h"
#include "base/file.h"
#include "cli/arguments.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/group_options.h"
#include "cli/outputs.h"
#include "cli/training_program.h"

namespace graft::cli {
namespace {

struct EvaluateOptions {
  CommonOptions common;
  std::string model;
  std::string data;
  std::string split = "auto";
  std::string predictions;
  std::string report;
  int views = 0;
  Precision precision = Precision::fp32;
  std::string device = "cpu";
  double max_skipped = Recipe().data.max_skipped;
  bool json = false;
  GroupOptions group;
  GroupPlace place;
};

/// By all processes of a group; nothing in those that are not the first.
std::optional<Evaluation> measure(const EvaluateOptions& o, const Classifier& classifier,
                                  const Dataset& dataset, const RunContext& context) {
  if (o.place.size <= 1) return evaluate(classifier, dataset, o.split, context);
  const fs::path folder = fs::absolute(model_file(o.model)).parent_path();
  return evaluate_in_group(classifier, dataset, o.split, o.place, parts_folder(o.group, folder),
                           context);
}

int run(const EvaluateOptions& o, const DeviceOpener& open) {
  for (const auto& [option, file] :
       {std::pair("--predictions", &o.predictions), {"--report", &o.report}})
    if (!file->empty()) refuse_input_as_output(*file, option, {o.data, model_file(o.model)});
  const std::shared_ptr<const ComputeDevice> device = open(o.device, o.common);
  const Classifier classifier = Classifier::load(o.model, {.threads = o.common.thread_count(),
                                                           .sessions = 1,
                                                           .views = o.views,
                                                           .precision = o.precision,
                                                           .device = device});
  const RunContext context = o.common.context();
  const Dataset dataset = open_dataset(o.data, context);
  const std::optional<Evaluation> measured = measure(o, classifier, dataset, context);
  if (!measured) return 0;
  const Evaluation& result = *measured;
  const size_t trained = images_trained_on(o.model, result, context);
  if (trained > 0)
    print_diagnostic(
        "graft: {} of these {} images are among those that the model was trained on; figures on "
        "images that it has not seen will be worse\n",
        trained, result.metrics.images);
  if (!o.predictions.empty()) {
    write_file_atomic(o.predictions, predictions_csv(result));
    tell_wrote(o.common, o.predictions);
  }
  if (!o.report.empty()) {
    write_report(
        result, o.model, dataset, o.report,
        fmt::format("graft evaluate {} {} --split {}{}{}{} --report {}", shell_quoted(o.model),
                    shell_quoted(o.data), o.split,
                    o.views > 0 ? fmt::format(" --views {}", o.views) : "",
                    result.precision == Precision::bf16 ? " --precision bf16" : "",
                    device ? " --device " + device_name(device.get()) : "", shell_quoted(o.report)),
        context);
    tell_wrote(o.common, o.report);
  }
  if (o.json)
    print_result("{}\n", evaluation_json(result, trained));
  else
    print_result("{}", metrics_text(result.metrics, classifier.classes()));
  require_few_skipped(result, o.max_skipped, printable(o.data));
  return 0;
}

}  // namespace

int run_evaluate(int argc, char** argv) {
  return run_evaluate_on(opener_by_becoming(argv), argc, argv);
}

int run_evaluate_on(const DeviceOpener& open, int argc, char** argv) {
  EvaluateOptions o;
  CLI::App app("Metrics of a trained model on labelled images.", "graft evaluate");
  app.add_option("MODEL", o.model, "A model.safetensors or a run folder")->required();
  app.add_option(
         "DATA", o.data,
         "A folder of class folders, one with test/, a zip or tar of one, or a CSV manifest")
      ->required();
  app.add_option("--split", o.split,
                 "Which images: test, val, train, all; auto takes test, else val, else all")
      ->check(one_of({"auto", "test", "val", "train", "all"}))
      ->capture_default_str()
      ->type_name("SPLIT");
  add_views_option(app, o.views);
  add_device_option(app, o.device);
  add_precision_option(app, o.precision);
  app.add_option("--predictions", o.predictions,
                 "Write each image's prediction and probabilities to this CSV file")
      ->check(ends_in(".csv"))
      ->type_name("FILE.csv");
  app.add_option("--report", o.report,
                 "Write a page about the result to this file: metrics, mistakes, Grad-CAM")
      ->check(ends_in(".html"))
      ->type_name("FILE.html");
  app.add_option("--max-skipped", o.max_skipped,
                 "Share of the images that may be unreadable; more is an error (exit code 1), with "
                 "the metrics of the others")
      ->check(within(0.0, 1.0))
      ->capture_default_str()
      ->type_name("SHARE");
  app.add_flag("--json", o.json, "One JSON document on stdout");
  add_group_options(app, o.group, "beside the model");
  add_common_options(app, o.common);
  app.footer(
      "Examples:\n"
      "  graft evaluate runs/scenes photos/test\n"
      "  graft evaluate runs/scenes runs/scenes/split.csv --split val --json\n"
      "  srun -n 8 graft evaluate runs/scenes /data/photos --predictions all.csv");
  return run_app(app, argc, argv, [&] {
    require_no_workers_on(o.device, o.group);
    o.place = join_group(o.group, o.common);
    return run(o, open);
  });
}

}  // namespace graft::cli
