#include <algorithm>
#include <array>
#include <numeric>
#include <optional>
#include <set>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "base/words.h"
#include "dataset/dataset.h"
#include "dataset/join_labels.h"
#include "dataset/labels.h"
#include "dataset/skipped.h"
#include "dataset/split.h"
#include "dataset/split_file.h"
#include "features/image_stream.h"
#include "graft/evaluate.h"
#include "graft/train.h"
#include "model/logits.h"
#include "recipe/option_values.h"
#include "report/metrics.h"
#include "report/predictions.h"
#include "report/report.h"
#include "run/learned.h"
#include "run/run_folder.h"

namespace graft {
namespace {

/// The samples to evaluate, and what they are called.
std::pair<std::vector<size_t>, std::string> choose(const Dataset& dataset, std::string_view split) {
  constexpr std::array<std::pair<std::string_view, Split>, 3> kSplits = {
      {{"test", Split::test}, {"val", Split::validation}, {"train", Split::train}}};
  if (split == "validation") split = "val";
  for (const auto& [name, value] : kSplits) {
    if (split == name) {
      std::vector<size_t> chosen = dataset.of(value);
      if (chosen.empty())
        fail(ErrorKind::input, "{}: has no {} split", printable(dataset.root), name);
      return {std::move(chosen), std::string(name)};
    }
    if (split == "auto" && value != Split::train && dataset.has(value))
      return {dataset.of(value), std::string(name)};
  }
  if (split != "auto" && split != "all")
    fail(ErrorKind::usage, "split '{}' is none of auto, test, val, train, all", clipped(split));
  std::vector<size_t> all(dataset.samples.size());
  std::iota(all.begin(), all.end(), 0);
  return {std::move(all), "all"};
}

/// Tells of classes of which nothing was measured.
void warn_of_lost_classes(const std::vector<Sample>& samples, const Predictions& predictions,
                          const RunContext& context) {
  std::vector<bool> measured(predictions.classes.size());
  for (const Sample& sample : predictions.samples)
    measured[static_cast<size_t>(sample.label)] = true;
  std::vector<std::string> lost;
  for (const Sample& sample : samples) {
    const auto label = static_cast<size_t>(sample.label);
    if (measured[label]) continue;
    measured[label] = true;  // named once
    lost.push_back(predictions.classes[label]);
  }
  if (!lost.empty() && !predictions.samples.empty())
    context.tell(Severity::warning,
                 fmt::format("no image of {} {} could be read; the metrics are of the others",
                             lost.size() == 1 ? "class" : "the classes", label_list(lost)));
}

}  // namespace

Evaluation evaluate(const Classifier& classifier, const Dataset& dataset, std::string_view split,
                    const RunContext& context) {
  check_dataset(dataset);
  const std::vector<std::string>& classes = classifier.classes();
  const auto [indices, name] = choose(dataset, split);
  const std::vector<Sample> samples = join_labels(dataset, indices, classes);
  const std::string understood =
      dataset.understood.empty() ? "" : fmt::format("understood as {}; ", dataset.understood);
  context.tell(Severity::info,
               fmt::format("{}: {}evaluating {} ({} images)", printable(dataset.root), understood,
                           name == "all" ? "all of it" : "the " + name + " split", samples.size()));
  for (const std::string& note : dataset.notes)
    context.tell(Severity::info, fmt::format("note: {}", note));
  std::vector<fs::path> paths;
  paths.reserve(samples.size());
  for (const Sample& sample : samples) paths.push_back(sample.path);
  const Network& net = classifier.info().network;
  const ImageJob job{.paths = paths,
                     .height = net.input_height,
                     .width = net.input_width,
                     .preprocessing = classifier.info().preprocessing,
                     .batch = classifier.max_batch(),
                     .label = "evaluating",
                     .context = context,
                     .needs_keys = true};
  Evaluation out{name, {classes, {}, {}}, {}, {}, classifier.precision()};
  stream_features(
      job, forward_of(classifier),
      [&](const StreamedImage& image, std::span<const float> logits) {
        Sample sample = samples[image.index];
        sample.content = image.key;  // images as they are: the content's hash
        try {
          check_logits(logits);
        } catch (const Error& error) {
          fail(error.kind(), "{}: {}", printable(sample.path), error.what());
        }
        out.predictions.add(sample, logits);
      },
      [&](size_t i, const std::string& message) {
        out.skipped.push_back(
            skipped_image(samples[i], classes[static_cast<size_t>(samples[i].label)], message));
      });
  for (const SkippedImage& image : dataset.skipped)
    if (image.split == Split::unassigned || name == "all" || name == to_string(image.split))
      out.skipped.push_back(image);
  const size_t images = out.predictions.samples.size() + out.skipped.size();
  if (!out.skipped.empty())
    for (const std::string& line : skipped_summary(out.skipped, images, {}))
      context.tell(Severity::warning, line);
  warn_of_lost_classes(samples, out.predictions, context);
  out.metrics = out.predictions.measure();
  if (out.metrics.images == 0)
    fail(ErrorKind::input, "{}: none of the {} images could be read", printable(dataset.root),
         samples.size());
  return out;
}

size_t images_trained_on(const std::filesystem::path& model, const Evaluation& evaluation,
                         const RunContext& context) {
  const std::optional<fs::path> run = run_of_model(model);
  if (!run) return 0;
  const Contents learned = learned_contents(*run);
  Dataset measured;
  measured.samples = evaluation.predictions.samples;
  if (!learned.empty()) {
    read_contents(measured, context);
    return static_cast<size_t>(
        std::count_if(measured.samples.begin(), measured.samples.end(),
                      [&](const Sample& sample) { return learned.contains(sample.content); }));
  }
  // Runs of earlier versions know their images by path.
  std::set<fs::path> trained;
  for (const SplitRow& row : read_split(*run / run_files::kSplit))
    if (row.split == Split::train) trained.insert(whole_path(row.path));
  return static_cast<size_t>(std::count_if(
      measured.samples.begin(), measured.samples.end(),
      [&](const Sample& sample) { return trained.contains(whole_path(sample.path)); }));
}

void require_few_skipped(const Evaluation& evaluation, double max_share, std::string_view name) {
  require_few_skipped(evaluation.skipped,
                      evaluation.predictions.samples.size() + evaluation.skipped.size(), max_share,
                      std::string(name), "the metrics are of the others; mend or remove them");
}

std::string evaluation_json(const Evaluation& evaluation, size_t trained_on) {
  nlohmann::json document = metrics_document(evaluation.metrics, evaluation.predictions.classes);
  document["split"] = evaluation.split;
  document["precision"] = options::word(evaluation.precision);
  document["trained_on"] = trained_on;
  document["skipped"] = nlohmann::json::array();
  for (const SkippedImage& image : evaluation.skipped)
    document["skipped"].push_back({{"path", image.path.string()}, {"why", image.why}});
  return document.dump(2, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string predictions_csv(const Evaluation& evaluation) {
  return predictions_csv(evaluation.predictions, "", true);
}

void write_report(const Evaluation& evaluation, const std::filesystem::path& model,
                  const Dataset& dataset, const std::filesystem::path& file,
                  const std::string& command, const RunContext& context) {
  check_dataset(dataset);
  check_predictions(evaluation.predictions);
  check_metrics(evaluation.metrics, evaluation.predictions.classes);
  if (same_file(file, model_file(model)))
    fail(ErrorKind::usage, "{}: is the model; choose another name for the page", printable(file));
  write_file_atomic(
      file,
      report_page({read_model(model_file(model)), evaluation.predictions, evaluation.metrics,
                   evaluation.split, dataset, read_run_folder(model), command,
                   images_trained_on(model, evaluation, context), context, evaluation.precision}));
}

void write_report(const Run& run, const std::filesystem::path& file, const RunContext& context) {
  const Dataset dataset = open_dataset(run.folder / run_files::kSplit);
  const Classifier classifier = run.classifier({.threads = context.thread_count(), .sessions = 1});
  write_report(evaluate(classifier, dataset, "auto", context), run.folder, dataset, file, "",
               context);
}

}  // namespace graft
