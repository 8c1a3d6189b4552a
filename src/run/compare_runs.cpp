// The public functions of graft/compare.h: which images two runs are compared on, and what each
// says about them.
#include <algorithm>
#include <optional>
#include <set>

#include "base/fail.h"
#include "base/file.h"
#include "dataset/archive.h"
#include "dataset/labels.h"
#include "dataset/split.h"
#include "dataset/split_file.h"
#include "graft/evaluate.h"
#include "report/compare.h"
#include "report/metrics.h"
#include "run/learned.h"

namespace graft {
namespace {

/// What identifies an image: its content, or where a run of an earlier version does not say that,
/// its path.
class Keys {
 public:
  explicit Keys(bool by_content) : by_content_(by_content) {}
  [[nodiscard]] bool by_content() const { return by_content_; }
  [[nodiscard]] std::string of(const fs::path& path, const std::string& content) const {
    return by_content_ && !content.empty() ? content : whole_path(path).string();
  }

 private:
  bool by_content_;
};

struct KeyedRun {
  fs::path folder;
  std::vector<SplitRow> split;
  ComparedRun compared;
  Contents learned_before{};
};

KeyedRun read_run(const fs::path& folder) {
  std::error_code error;
  if (!fs::is_directory(folder, error))
    fail(ErrorKind::input, "{}: no run folder; give folders that graft train made",
         printable(folder));
  KeyedRun out{folder, {}, {printable(folder), read_run_folder(folder), {}, {}}};
  std::string& name = out.compared.name;
  while (name.size() > 1 && name.ends_with('/')) name.pop_back();
  for (const char* file : {run_files::kHistory, run_files::kMetrics, run_files::kPredictions})
    if (!fs::exists(folder / file, error))
      fail(ErrorKind::input, "{}: no finished run: it has no {}; train it to its end",
           printable(folder), file);
  if (fs::exists(folder / run_files::kSplit, error))
    out.split = read_split(folder / run_files::kSplit);
  out.learned_before = learned_before(folder);
  return out;
}

/// Fills in what the run's own files say.
void fill_known(KeyedRun& run, const Keys& keys) {
  std::map<fs::path, const SplitRow*> by_path;
  for (const SplitRow& row : run.split) {
    by_path.emplace(whole_path(row.path), &row);
    if (row.split == Split::train) run.compared.trained.insert(keys.of(row.path, row.content));
  }
  if (keys.by_content()) run.compared.trained.merge(run.learned_before);
  for (PredictionRow& row : read_predictions(run.folder / run_files::kPredictions)) {
    const auto at = by_path.find(whole_path(row.path));
    std::string key = keys.of(row.path, at == by_path.end() ? "" : at->second->content);
    run.compared.held_back.emplace(std::move(key), std::move(row));
  }
}

Classifier load(const KeyedRun& run, const RunContext& context) {
  return Classifier::load(run.folder, {.threads = context.thread_count(), .sessions = 1});
}

/// Has a run classify images, and keeps the answers under their keys.
void classify(KeyedRun& run, const Classifier& classifier, const Dataset& images,
              const std::vector<std::string>& keys, std::string_view split,
              const RunContext& context) {
  std::map<std::string, std::string> key_of;
  for (size_t i = 0; i < keys.size(); ++i) key_of[images.samples[i].path.string()] = keys[i];
  const Evaluation found = evaluate(classifier, images, "all", context);
  const Predictions& p = found.predictions;
  for (size_t i = 0; i < p.samples.size(); ++i) {
    const auto best = static_cast<size_t>(p.predicted(i));
    const std::string path = p.samples[i].path.string();
    run.compared.held_back.insert_or_assign(
        key_of.at(path),
        PredictionRow{path, p.classes[static_cast<size_t>(p.samples[i].label)], p.classes[best],
                      softmax(p.row(i))[best], std::string(split)});
  }
}

/// Images that `other` was not trained on and has classified, and that `run` could be asked about.
void classify_missing(KeyedRun& run, const std::vector<KeyedRun>& all, const RunContext& context) {
  std::map<std::string, const PredictionRow*> missing;
  for (const KeyedRun& other : all) {
    if (&other == &run) continue;
    const std::vector<std::string> common = common_images(run.compared, other.compared);
    // Test images in common are enough.
    if (!common.empty() && run.compared.held_back.at(common[0]).split == "test" &&
        other.compared.held_back.at(common[0]).split == "test")
      continue;
    for (const auto& [key, row] : other.compared.held_back)
      if (!run.compared.held_back.contains(key) && !run.compared.trained.contains(key))
        missing.emplace(key, &row);
  }
  if (missing.empty()) return;
  const Classifier classifier = load(run, context);
  const std::vector<std::string>& classes = classifier.classes();
  Dataset images;
  images.root = run.folder;
  images.classes = classes;
  images.understood = "";
  std::vector<std::string> keys;
  std::vector<const PredictionRow*> lost;
  std::set<std::string> foreign;
  for (const auto& [key, row] : missing) {
    const int label = find_label(classes, row->label);
    if (label < 0) {
      foreign.insert(row->label);
      continue;
    }
    if (kind_of_path(row->path) != PathKind::file) {
      lost.push_back(row);
      continue;
    }
    keys.push_back(key);
    images.samples.push_back({row->path, label});
  }
  if (!foreign.empty())
    context.tell(Severity::note,
                 fmt::format("note: {} does not have {} {}: images of {} are not compared",
                             printable(run.folder), foreign.size() == 1 ? "class" : "the classes",
                             label_list({foreign.begin(), foreign.end()}),
                             foreign.size() == 1 ? "it" : "them"));
  if (!lost.empty())
    context.tell(
        Severity::warning,
        fmt::format("{}: {} images that another run has classified are not found any more, "
                    "the first: {}; give images with `data` DATA",
                    printable(run.folder), lost.size(), printable(lost[0]->path)));
  if (!images.samples.empty()) classify(run, classifier, images, keys, "unseen", context);
}

/// Leaves out the classes that not every run has, with a note.
void keep_common_classes(Dataset& data, const std::vector<KeyedRun>& runs,
                         const RunContext& context) {
  std::vector<std::string> common = data.classes;
  for (const KeyedRun& run : runs) {
    const std::vector<std::string> classes = read_model_info(run.folder).classes;
    std::erase_if(common, [&](const std::string& label) { return find_label(classes, label) < 0; });
  }
  if (common.size() == data.classes.size()) return;
  if (common.empty())
    fail(ErrorKind::input, "{}: its classes ({}) are not those of all runs", printable(data.root),
         label_list(data.classes));
  std::vector<std::string> left;
  for (const std::string& label : data.classes)
    if (find_label(common, label) < 0) left.push_back(label);
  std::vector<Sample> samples;
  for (Sample& sample : data.samples) {
    const int label = find_label(common, data.classes[static_cast<size_t>(sample.label)]);
    if (label < 0) continue;
    sample.label = label;
    samples.push_back(std::move(sample));
  }
  context.tell(
      Severity::note,
      fmt::format("note: {}: {} of {} images are left out, of {} {}, which not every run "
                  "has",
                  printable(data.root), data.samples.size() - samples.size(), data.samples.size(),
                  left.size() == 1 ? "class" : "the classes", label_list(left)));
  data.samples = std::move(samples);
  data.classes = std::move(common);
}

/// The samples that are compared on, by their content.
Dataset chosen(Dataset data, const std::vector<KeyedRun>& runs, std::vector<std::string>& keys,
               const Keys& how, const RunContext& context) {
  const Split split = data.has(Split::test)         ? Split::test
                      : data.has(Split::validation) ? Split::validation
                                                    : Split::unassigned;
  std::vector<Sample> samples;
  for (Sample& sample : data.samples)
    if (split == Split::unassigned || sample.split == split) samples.push_back(std::move(sample));
  data.samples = std::move(samples);
  keep_common_classes(data, runs, context);
  read_contents(data, context);
  size_t learned = 0;
  samples.clear();
  for (Sample& sample : data.samples) {
    std::string key = how.of(sample.path, sample.content);
    if (std::any_of(runs.begin(), runs.end(),
                    [&](const KeyedRun& run) { return run.compared.trained.contains(key); })) {
      ++learned;
      continue;
    }
    keys.push_back(std::move(key));
    samples.push_back(std::move(sample));
  }
  if (samples.empty())
    fail(ErrorKind::input, "{}: a run was trained on each of its {} images; give others",
         printable(data.root), learned);
  if (learned > 0)
    context.tell(Severity::note,
                 fmt::format("note: {}: {} of {} images are left out, since one of the runs was "
                             "trained on them",
                             printable(data.root), learned, learned + samples.size()));
  data.samples = std::move(samples);
  return data;
}

Comparison compare(const std::vector<std::filesystem::path>& folders, const Dataset* data,
                   const RunContext& context) {
  std::vector<KeyedRun> keyed;
  std::set<fs::path> seen;
  keyed.reserve(folders.size());
  for (const fs::path& folder : folders) {
    if (!seen.insert(fs::weakly_canonical(folder)).second)
      fail(ErrorKind::usage, "{}: named twice; name different runs", printable(folder));
    keyed.push_back(read_run(folder));
  }
  if (keyed.size() < 2) fail(ErrorKind::usage, "compare needs at least two run folders");
  const Keys keys(std::all_of(keyed.begin(), keyed.end(), [](const KeyedRun& run) {
    return std::any_of(run.split.begin(), run.split.end(),
                       [](const SplitRow& row) { return !row.content.empty(); });
  }));
  for (KeyedRun& run : keyed) fill_known(run, keys);
  if (data != nullptr) {
    std::vector<std::string> names;
    const Dataset images = chosen(*data, keyed, names, keys, context);
    for (KeyedRun& run : keyed) {
      run.compared.held_back.clear();
      classify(run, load(run, context), images, names, "data", context);
    }
  } else {
    for (KeyedRun& run : keyed) classify_missing(run, keyed, context);
  }
  std::vector<ComparedRun> runs;
  runs.reserve(keyed.size());
  for (KeyedRun& run : keyed) runs.push_back(std::move(run.compared));
  const std::vector<PairComparison> pairs = compare_pairs(runs);
  return {compare_text(runs, pairs),
          compare_json(runs, pairs).dump(2, ' ', false, nlohmann::json::error_handler_t::replace),
          compare_page(runs, pairs)};
}

}  // namespace

Comparison compare_runs(const std::vector<std::filesystem::path>& folders,
                        const RunContext& context) {
  return compare(folders, nullptr, context);
}

Comparison compare_runs(const std::vector<std::filesystem::path>& folders, const Dataset& data,
                        const RunContext& context) {
  return compare(folders, &data, context);
}

}  // namespace graft
