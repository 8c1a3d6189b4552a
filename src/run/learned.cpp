#include "run/learned.h"

#include <algorithm>

#include "base/csv.h"
#include "base/fail.h"
#include "base/file.h"
#include "dataset/split_file.h"
#include "graft/classifier.h"
#include "graft/run_files.h"
#include "run/keep_head.h"

namespace graft {
namespace {

constexpr std::string_view kHeader = "content\n";

/// Whether layers of a run's backbone were trained, by it or by a run before it.
bool has_trained_layers(const fs::path& run) {
  const ModelInfo about = read_model_info(run);
  std::error_code error;
  return (!about.fine_tune.empty() && about.fine_tune != "0") ||
         fs::exists(run / run_files::kLearnedBefore, error);
}

size_t count_aside(const Dataset& dataset, const Contents& learned, Split split) {
  return static_cast<size_t>(
      std::count_if(dataset.samples.begin(), dataset.samples.end(), [&](const Sample& sample) {
        return sample.split == split && learned.contains(sample.content);
      }));
}

}  // namespace

std::optional<fs::path> run_of_model(const fs::path& model) {
  std::error_code error;
  if (model.empty()) return std::nullopt;
  const fs::path run =
      fs::is_directory(model, error) ? model : fs::absolute(model, error).parent_path();
  if (!fs::exists(run / run_files::kSplit, error) || !same_file(model_file(run), model_file(model)))
    return std::nullopt;
  return run;
}

Contents learned_contents(const fs::path& run) {
  Contents out;
  for (SplitRow& row : read_split(run / run_files::kSplit))
    if (row.split == Split::train && !row.content.empty()) out.insert(std::move(row.content));
  out.merge(learned_before(run));
  return out;
}

Contents learned_before(const fs::path& run) {
  Contents out;
  const fs::path before = run / run_files::kLearnedBefore;
  std::error_code error;
  if (!fs::exists(before, error)) return out;
  const std::vector<CsvRow> rows = parse_csv(read_text_file(before), printable(before));
  if (rows.empty() || rows[0].fields != std::vector<std::string>{"content"})
    fail(ErrorKind::input, "{}: no list of contents: its first line must be content",
         printable(before));
  for (size_t i = 1; i < rows.size(); ++i) out.insert(rows[i].fields[0]);
  return out;
}

std::optional<fs::path> teacher(const Recipe& recipe) {
  std::optional<fs::path> run = run_of_model(recipe.model.weights);
  if (run && !keeps_head(recipe) && !has_trained_layers(*run)) return std::nullopt;
  return run;
}

void write_learned_before(const Recipe& recipe, const fs::path& run) {
  const std::optional<fs::path> earlier = teacher(recipe);
  if (!earlier) return;
  std::string text(kHeader);
  for (const std::string& content : learned_contents(*earlier)) text += content + "\n";
  write_file_atomic(run / run_files::kLearnedBefore, text);
}

size_t count_learned(const std::vector<Sample>& samples, const Contents& learned) {
  return static_cast<size_t>(
      std::count_if(samples.begin(), samples.end(),
                    [&](const Sample& sample) { return learned.contains(sample.content); }));
}

void note_learned(Dataset& dataset, const fs::path& teacher) {
  const Contents learned = learned_contents(teacher);
  for (const Split split : {Split::validation, Split::test}) {
    const size_t count = count_aside(dataset, learned, split);
    if (count == 0) continue;
    dataset.notes.push_back(fmt::format(
        "{} of {} {} images were trained on by {} or the runs before it: figures on them flatter; "
        "`split-from` {} keeps them apart",
        count, dataset.of(split).size(), to_string(split), printable(teacher), printable(teacher)));
  }
}

}  // namespace graft
