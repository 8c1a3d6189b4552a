// Writing reviews of labels.
#include "dataset/review.h"

#include <algorithm>
#include <optional>

#include "base/csv.h"
#include "base/fail.h"
#include "base/file.h"
#include "dataset/archive.h"
#include "dataset/split.h"
#include "dataset/table_file.h"
#include "graft/labels.h"

namespace graft {

fs::path review_folder(const Dataset& dataset) {
  const fs::path root = fs::absolute(dataset.root).lexically_normal();
  return kind_of_path(root) == PathKind::folder ? root : root.parent_path();
}

std::string review_path(const Dataset& dataset, const fs::path& image) {
  const fs::path whole = fs::absolute(image).lexically_normal();
  const fs::path below = whole.lexically_relative(review_folder(dataset));
  return (below.empty() || *below.begin() == ".." ? whole : below).string();
}

std::string review_line(const std::string& path, const std::string& label,
                        const std::string& suggestion, const std::string& confidence,
                        std::string_view action, const std::string& content) {
  const auto text = [](const std::string& field) {
    return csv_field(is_formula(field) ? "'" + field : field);
  };
  return fmt::format("{},{},{},{},{},{}\n", csv_field(is_formula(path) ? "./" + path : path),
                     text(label), text(suggestion), confidence, action, content);
}

std::string label_of_field(std::string_view field) {
  if (field.starts_with('\'') && is_formula(field.substr(1))) field.remove_prefix(1);
  return std::string(field);
}

namespace {

/// Rows with a decision in a file that is there; nothing where it is no review that can be read.
std::optional<size_t> count_decisions(const fs::path& file) {
  try {
    const TableFile table = read_table_file(file, "review", "", ",;\t");
    const std::vector<std::string>& header = table.rows[0].fields;
    const auto is_named = [&](std::string_view name) {
      return std::any_of(header.begin(), header.end(),
                         [&](const std::string& field) { return column_name(field) == name; });
    };
    if (!is_named("path") || !(is_named("action") || is_named("new_label"))) return std::nullopt;
    const auto is_decision = [&](const CsvRow& row) {
      for (size_t k = 0; k < std::min(header.size(), row.fields.size()); ++k) {
        const std::string name = column_name(header[k]);
        if ((name == "action" || name == "new_label") && !trimmed(row.fields[k]).empty())
          return true;
      }
      return false;
    };
    return static_cast<size_t>(
        std::count_if(table.rows.begin() + 1, table.rows.end(), is_decision));
  } catch (const Error&) {
    return std::nullopt;
  }
}

}  // namespace

std::string review_csv(const Dataset& dataset, const LabelCheck& found) {
  std::string text(kReviewHeader);
  if (!dataset.decisions.empty()) text = dataset.decisions;
  Dataset doubtful;
  for (size_t k = 0; k < found.doubtful; ++k)
    doubtful.samples.push_back(dataset.samples.at(found.ranking[k].sample));
  read_contents(doubtful, {});
  for (size_t k = 0; k < found.doubtful; ++k) {
    const LabelDoubt& doubt = found.ranking[k];
    const Sample& sample = doubtful.samples[k];
    text += review_line(review_path(dataset, sample.path),
                        dataset.classes.at(static_cast<size_t>(sample.label)),
                        dataset.classes.at(static_cast<size_t>(doubt.suggestion)),
                        fmt::format("{:.2f}", doubt.confidence), "", sample.content);
  }
  return text;
}

void require_review_replaceable(const Dataset& dataset, const fs::path& file) {
  if (!dataset.corrections.empty() && same_file(file, dataset.corrections)) return;
  std::error_code error;
  if (!fs::exists(file, error)) return;
  const std::optional<size_t> decisions = count_decisions(file);
  if (!decisions)
    fail(ErrorKind::usage,
         "{}: is there, and no review that can be read; choose another name, or move it away",
         printable(file));
  if (*decisions > 0)
    fail(ErrorKind::usage,
         "{}: there {} in it, which would be lost; give it as `corrections`, which carries them "
         "over, or choose another name",
         printable(file),
         *decisions == 1 ? "is a decision" : fmt::format("are {} decisions", *decisions));
}

void write_review(const Dataset& dataset, const LabelCheck& found, const fs::path& file) {
  require_review_replaceable(dataset, file);
  write_file_atomic(file, review_csv(dataset, found));
}

}  // namespace graft
