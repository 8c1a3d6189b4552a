// graft evaluate: metrics of a model on labelled pictures.
#include <algorithm>
#include <array>
#include <numeric>

#include "base/diagnostics.h"
#include "base/file.h"
#include "cli/arguments.h"
#include "cli/common.h"
#include "cli/outputs.h"
#include "dataset/labels.h"
#include "dataset/skipped.h"
#include "graft/error.h"
#include "model/evaluate.h"
#include "model/model_file.h"
#include "report/metrics.h"
#include "report/predictions.h"
#include "report/report.h"

namespace graft::cli {
namespace {

struct EvaluateOptions {
  CommonOptions common;
  std::string model;
  std::string data;
  std::string split = "auto";
  std::string predictions;
  std::string report;
  double max_skipped = kMaxSkipped;
  bool json = false;
};

/// The samples to evaluate, and what they are called.
std::pair<std::vector<size_t>, std::string> choose(const Dataset& dataset,
                                                   const std::string& split) {
  const std::array<std::pair<std::string, Split>, 3> kSplits = {
      {{"test", Split::test}, {"val", Split::validation}, {"train", Split::train}}};
  for (const auto& [name, value] : kSplits) {
    if (split == name) {
      std::vector<size_t> chosen = dataset.of(value);
      if (chosen.empty())
        fail(ErrorKind::input, "{}: has no {} split", printable(dataset.root), name);
      return {chosen, name};
    }
    if (split == "auto" && value != Split::train && dataset.has(value))
      return {dataset.of(value), name};
  }
  std::vector<size_t> all(dataset.samples.size());
  std::iota(all.begin(), all.end(), 0);
  return {all, "all"};
}

int run(const EvaluateOptions& o) {
  for (const auto& [option, file] :
       {std::pair("--predictions", &o.predictions), {"--report", &o.report}})
    if (!file->empty()) refuse_input_as_output(*file, option, {o.data, resolve_model(o.model)});
  const Classifier classifier =
      Classifier::load(o.model, {.threads = o.common.thread_count(), .sessions = 1});
  const Dataset dataset = open_dataset(o.data);
  const auto [indices, split] = choose(dataset, o.split);
  EvaluateJob job{join_labels(dataset, indices, classifier.classes()), "evaluating",
                  o.common.context()};
  if (!o.common.quiet) {
    print_diagnostic("{}: understood as {}; evaluating {} ({} images)\n", printable(o.data),
                     dataset.understood, split == "all" ? "all of it" : "the " + split + " split",
                     job.samples.size());
    for (const std::string& note : dataset.notes) print_diagnostic("note: {}\n", note);
  }

  Predictions predictions{classifier.classes(), {}, {}};
  std::vector<SkippedImage> skipped;
  evaluate(
      job, classifier,
      [&](const Sample& sample, std::span<const float> logits) { predictions.add(sample, logits); },
      [&](const Sample& sample, const std::string& message) {
        skipped.push_back(skipped_image(
            sample, classifier.classes()[static_cast<size_t>(sample.label)], message));
      });
  for (const SkippedImage& image : dataset.skipped)
    if (image.split == Split::unassigned || split == "all" || split == to_string(image.split))
      skipped.push_back(image);
  const size_t images = predictions.samples.size() + skipped.size();
  if (!skipped.empty())
    for (const std::string& line : skipped_summary(skipped, images, {}))
      print_diagnostic("graft: {}\n", line);
  std::vector<bool> measured(classifier.classes().size());
  for (const Sample& sample : predictions.samples)
    measured[static_cast<size_t>(sample.label)] = true;
  std::vector<std::string> lost;
  for (const Sample& sample : job.samples) {
    const auto label = static_cast<size_t>(sample.label);
    if (measured[label]) continue;
    measured[label] = true;  // named once
    lost.push_back(classifier.classes()[label]);
  }
  if (!lost.empty() && !predictions.samples.empty())
    print_diagnostic("graft: no image of {} {} could be read; the metrics are of the others\n",
                     lost.size() == 1 ? "class" : "the classes", label_list(lost));
  const Metrics metrics = predictions.measure();
  if (metrics.images == 0)
    fail(ErrorKind::input, "{}: none of the {} images could be read", printable(dataset.root),
         job.samples.size());
  if (!o.predictions.empty())
    write_file_atomic(o.predictions, predictions_csv(predictions, "", true));
  if (!o.report.empty())
    write_file_atomic(o.report,
                      report_page({read_model(resolve_model(o.model)), predictions, metrics, split,
                                   dataset, read_run_folder(o.model),
                                   fmt::format("graft evaluate {} {} --split {} --report {}",
                                               shell_quoted(o.model), shell_quoted(o.data), o.split,
                                               shell_quoted(o.report)),
                                   o.common.context()}));
  if (o.json) {
    nlohmann::json document = metrics_json(metrics, classifier.classes());
    document["split"] = split;
    document["skipped"] = nlohmann::json::array();
    for (const SkippedImage& image : skipped)
      document["skipped"].push_back({{"path", image.path.string()}, {"why", image.why}});
    print_json(document);
  } else {
    print_result("{}", metrics_text(metrics, classifier.classes()));
  }
  require_few_skipped(skipped, images, o.max_skipped, printable(o.data),
                      "the metrics are of the others; mend or remove them");
  return 0;
}

}  // namespace

int run_evaluate(int argc, char** argv) {
  EvaluateOptions o;
  CLI::App app("Metrics of a trained model on labelled pictures.", "graft evaluate");
  app.add_option("MODEL", o.model, "A model.safetensors or a run folder")->required();
  app.add_option("DATA", o.data, "A folder of class folders, one with test/, or a CSV manifest")
      ->required();
  app.add_option("--split", o.split,
                 "Which pictures: test, val, train, all; auto takes test, else val, else all")
      ->check(one_of({"auto", "test", "val", "train", "all"}))
      ->capture_default_str()
      ->type_name("SPLIT");
  app.add_option("--predictions", o.predictions,
                 "Write each picture's prediction and probabilities to this CSV file")
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
  add_common_options(app, o.common);
  app.footer(
      "Examples:\n"
      "  graft evaluate runs/scenes photos/test\n"
      "  graft evaluate runs/scenes runs/scenes/split.csv --split val --json");
  return run_app(app, argc, argv, [&] { return run(o); });
}

}  // namespace graft::cli
