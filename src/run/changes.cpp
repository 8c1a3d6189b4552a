#include "run/changes.h"

#include <algorithm>
#include <map>
#include <set>

#include "base/fail.h"
#include "base/file.h"
#include "base/progress.h"
#include "base/words.h"
#include "dataset/labels.h"
#include "dataset/split_file.h"
#include "graft/run_files.h"
#include "report/html.h"
#include "run/keep_head.h"

namespace graft {
namespace {

std::string counted(size_t count, std::string_view what) {
  return fmt::format("{} {}", format_count(count), what);
}

}  // namespace

std::optional<std::filesystem::path> earlier_run(const Recipe& recipe) {
  std::error_code error;
  fs::path run = recipe.model.weights;
  if (!keeps_head(recipe) || !fs::is_directory(run, error) ||
      !fs::exists(run / run_files::kSplit, error))
    return std::nullopt;
  return run;
}

DataChanges changes_since(const std::filesystem::path& run, const Dataset& dataset) {
  const std::vector<SplitRow> rows = read_split(run / run_files::kSplit);
  const KnownImages known(rows);
  std::map<std::string, ClassChange> classes;
  const auto of = [&](const std::string& label) -> ClassChange& {
    ClassChange& change = classes[label];
    change.label = label;
    return change;
  };
  std::set<const SplitRow*> here;
  for (const std::string& label : dataset.classes) of(label);
  for (const Sample& sample : dataset.samples) {
    ClassChange& change = of(dataset.classes[static_cast<size_t>(sample.label)]);
    ++change.now;
    const SplitRow* row = known.find(sample);
    if (row == nullptr)
      ++change.fresh;
    else if (row->label != change.label)
      ++change.relabelled;
    if (row != nullptr) here.insert(row);
  }
  for (const SplitRow& row : rows) {
    if (row.split == Split::unassigned) continue;
    ++of(row.label).before;
    Sample sample{row.path};
    sample.content = row.content;
    if (!here.contains(known.find(sample))) ++of(row.label).gone;
  }
  DataChanges out{run, {}};
  for (auto& [label, change] : classes) out.classes.push_back(std::move(change));
  return out;
}

std::string changes_text(const DataChanges& changes) {
  ClassChange sum;
  std::vector<std::string> fresh;
  std::vector<std::string> gone;
  for (const ClassChange& change : changes.classes) {
    sum.fresh += change.fresh;
    sum.gone += change.gone;
    sum.relabelled += change.relabelled;
    if (change.before == 0) fresh.push_back(change.label);
    if (change.now == 0) gone.push_back(change.label);
  }
  std::vector<std::string> parts;
  if (sum.fresh > 0)
    parts.push_back(counted(sum.fresh, sum.fresh == 1 ? "new image" : "new images"));
  if (sum.gone > 0) parts.push_back(counted(sum.gone, "no longer there"));
  if (sum.relabelled > 0) parts.push_back(counted(sum.relabelled, "with another label"));
  std::string out =
      fmt::format("since {}: {}", printable(changes.run),
                  parts.empty() ? "the same images" : fmt::format("{}", fmt::join(parts, ", ")));
  const auto classes = [&](const std::vector<std::string>& labels, std::string_view what) {
    if (!labels.empty())
      out += fmt::format("; {} {} {}", labels.size() == 1 ? "class" : "classes", label_list(labels),
                         what);
  };
  classes(fresh, fresh.size() == 1 ? "is new" : "are new");
  classes(gone, "left out");
  return out;
}

std::string changes_html(const DataChanges& changes) {
  std::vector<std::vector<std::string>> rows;
  for (const ClassChange& c : changes.classes)
    rows.push_back({html::escape(c.label), format_count(c.before), format_count(c.now),
                    format_count(c.fresh), format_count(c.gone), format_count(c.relabelled)});
  return fmt::format("<p>{}.</p>\n", html::escape(changes_text(changes))) +
         html::table({"class", "images before", "now", "new", "gone", "had another label"}, rows);
}

}  // namespace graft
