#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <numeric>
#include <optional>
#include <set>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "base/group_folder.h"
#include "base/hash.h"
#include "base/part_file.h"
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

/// What evaluating consists of, whichever process computes which images.
class Measurement {
 public:
  Measurement(const Classifier& classifier, const Dataset& dataset, std::string_view split,
              const RunContext& context)
      : classifier_(classifier), dataset_(dataset), context_(context) {
    check_dataset(dataset);
    auto [indices, name] = choose(dataset, split);
    samples_ = join_labels(dataset, indices, classifier.classes());
    const std::string understood =
        dataset.understood.empty() ? "" : fmt::format("understood as {}; ", dataset.understood);
    context.tell(
        Severity::info,
        fmt::format("{}: {}evaluating {} ({} images)", printable(dataset.root), understood,
                    name == "all" ? "all of it" : "the " + name + " split", samples_.size()));
    for (const std::string& note : dataset.notes)
      context.tell(Severity::info, fmt::format("note: {}", note));
    paths_.reserve(samples_.size());
    for (const Sample& sample : samples_) paths_.push_back(sample.path);
    out_ = {std::move(name), {classifier.classes(), {}, {}}, {}, {}, classifier.precision()};
  }

  [[nodiscard]] const std::vector<Sample>& samples() const { return samples_; }
  [[nodiscard]] const std::vector<fs::path>& paths() const { return paths_; }
  [[nodiscard]] const std::string& name() const { return out_.split; }

  /// `sink(i, content, logits)` or `on_error(i, why)` for each of these samples, in their order.
  void compute(std::span<const size_t> samples, const RunContext& context,
               const std::function<void(size_t, const std::string&, std::span<const float>)>& sink,
               const std::function<void(size_t, const std::string&)>& on_error) const {
    std::vector<fs::path> paths;
    paths.reserve(samples.size());
    for (const size_t i : samples) paths.push_back(paths_[i]);
    const Network& net = classifier_.info().network;
    const ImageJob job{.paths = paths,
                       .height = net.input_height,
                       .width = net.input_width,
                       .preprocessing = classifier_.info().preprocessing,
                       .batch = classifier_.max_batch(),
                       .label = "evaluating",
                       .context = context,
                       .needs_keys = true};
    stream_features(
        job, forward_of(classifier_),
        [&](const StreamedImage& image, std::span<const float> logits) {
          const size_t i = samples[image.index];
          try {
            check_logits(logits);
          } catch (const Error& error) {
            fail(error.kind(), "{}: {}", printable(paths_[i]), error.what());
          }
          sink(i, image.key, logits);  // of images as they are: the content's hash
        },
        [&](size_t k, const std::string& message) { on_error(samples[k], message); });
  }

  void add(size_t i, const std::string& content, std::span<const float> logits) {
    Sample sample = samples_[i];
    sample.content = content;
    out_.predictions.add(sample, logits);
  }

  void skip(size_t i, const std::string& why) {
    const auto label = static_cast<size_t>(samples_[i].label);
    out_.skipped.push_back(skipped_image(samples_[i], classifier_.classes()[label], why));
  }

  Evaluation finish() {
    for (const SkippedImage& image : dataset_.skipped)
      if (image.split == Split::unassigned || out_.split == "all" ||
          out_.split == to_string(image.split))
        out_.skipped.push_back(image);
    const size_t images = out_.predictions.samples.size() + out_.skipped.size();
    if (!out_.skipped.empty())
      for (const std::string& line : skipped_summary(out_.skipped, images, {}))
        context_.tell(Severity::warning, line);
    warn_of_lost_classes(samples_, out_.predictions, context_);
    out_.metrics = out_.predictions.measure();
    if (out_.metrics.images == 0)
      fail(ErrorKind::input, "{}: none of the {} images could be read", printable(dataset_.root),
           samples_.size());
    return std::move(out_);
  }

 private:
  const Classifier& classifier_;
  const Dataset& dataset_;
  const RunContext& context_;
  std::vector<Sample> samples_;
  std::vector<fs::path> paths_;
  Evaluation out_;
};

/// What a classifier makes of one image, and so its weights, its precision and how this processor
/// rounds.
std::string fingerprint(const Classifier& classifier) {
  std::vector<float> input(classifier.input_elements());
  for (size_t k = 0; k < input.size(); ++k)
    input[k] = static_cast<float>(k * 2'654'435'761U % 256) - 128.0F;
  std::vector<float> logits(classifier.classes().size());
  classifier.run(input, 1, logits);
  ContentHash hash;
  hash.update(std::as_bytes(std::span(logits)));
  for (const std::string& name : classifier.classes())
    hash.update(std::as_bytes(std::span(name.c_str(), name.size() + 1)));
  return hash.finish();
}

// Parts of a group's evaluation: records begin with one of these, then the image's content and a
// line end, then its logits or why there are none.
constexpr const char* kKind = "evaluation";
constexpr char kRow = 'r';
constexpr char kSkipped = 's';

}  // namespace

Evaluation evaluate(const Classifier& classifier, const Dataset& dataset, std::string_view split,
                    const RunContext& context) {
  Measurement all(classifier, dataset, split, context);
  std::vector<size_t> samples(all.samples().size());
  std::iota(samples.begin(), samples.end(), size_t{0});
  all.compute(
      samples, context,
      [&](size_t i, const std::string& content, std::span<const float> logits) {
        all.add(i, content, logits);
      },
      [&](size_t i, const std::string& why) { all.skip(i, why); });
  return all.finish();
}

std::optional<Evaluation> evaluate_in_group(const Classifier& classifier, const Dataset& dataset,
                                            std::string_view split, const GroupPlace& place,
                                            const std::filesystem::path& folder,
                                            const RunContext& context) {
  Measurement all(classifier, dataset, split, context);
  const std::vector<fs::path>& paths = all.paths();
  const uint32_t count = group_parts(paths.size(), place.size);
  PartHead head{kKind,
                {0, count},
                paths.size(),
                list_hash(paths),
                {{"model", fingerprint(classifier)}, {"split", all.name()}}};
  const nlohmann::json job = {{"images", head.images}, {"list", head.list}, {"about", head.about}};
  // Of its own for these images: another evaluation of the model may be at work.
  GroupFolder group(folder / fmt::format("evaluation-{}.parts", head.list.substr(0, 12)), place,
                    job.dump(), context);
  WithoutProgress messages(context.reporter);
  RunContext inner = context;
  inner.reporter = &messages;
  const auto part = [&](uint32_t k) { return part_path(group.path(), kKind, {k, count}); };
  const auto compute = [&](uint32_t k) {
    head.shard.index = k;
    std::vector<size_t> members = shard_members(paths, head.shard);
    size_t earlier = 0;
    PartWriter writer(
        part(k), head, /*replace=*/true,
        [&](const PartRecord& record) {
          if (earlier >= members.size() || record.image != members[earlier++])
            fail(ErrorKind::input, "{}: not the images of this part; remove it",
                 printable(part(k)));
        },
        [&](const std::string& note) { context.tell(Severity::warning, note); });
    if (writer.complete()) return;
    members.erase(members.begin(), members.begin() + static_cast<std::ptrdiff_t>(earlier));
    const auto add = [&](size_t i, char mark, const std::string& text, std::string_view bytes) {
      writer.add({i, paths[i].native(), mark + text + '\n' + std::string(bytes)});
    };
    all.compute(
        members, inner,
        [&](size_t i, const std::string& content, std::span<const float> logits) {
          add(i, kRow, content,
              {reinterpret_cast<const char*>(logits.data()), logits.size_bytes()});
        },
        [&](size_t i, const std::string& why) { add(i, kSkipped, "", why); });
    writer.commit();
  };
  const std::vector<fs::path> parts = group.share_out(count, part, compute);
  if (place.rank != 0) return std::nullopt;
  Parts(parts, kKind).read([&](const PartRecord& record) {
    const size_t end = record.content.find('\n');
    if (end == 0 || end == std::string_view::npos)
      fail(ErrorKind::input, "{}: a part holds no record of it", record.path);
    const std::string_view bytes = record.content.substr(end + 1);
    if (record.content[0] == kSkipped) {
      all.skip(record.image, std::string(bytes));
      return;
    }
    std::vector<float> logits(classifier.classes().size());
    if (bytes.size() != logits.size() * sizeof(float))
      fail(ErrorKind::input, "{}: a part holds another number of classes", record.path);
    std::memcpy(logits.data(), bytes.data(), bytes.size());
    all.add(record.image, std::string(record.content.substr(1, end - 1)), logits);
  });
  Evaluation made = all.finish();
  group.remove(kKind);
  return made;
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
    return count_learned(measured.samples, learned);
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
