// Writing reviews of labels.
#include "dataset/review.h"

#include <algorithm>

#include "base/csv.h"
#include "base/fail.h"
#include "base/file.h"
#include "dataset/archive.h"
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

size_t count_decisions(const fs::path& file) {
  std::error_code error;
  if (!fs::exists(file, error)) return 0;
  try {
    const TableFile table = read_table_file(file, "review", "", ",;\t");
    const std::vector<std::string>& header = table.rows[0].fields;
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
    return 0;  // no review
  }
}

std::string review_csv(const Dataset& dataset, const LabelCheck& found) {
  std::string text(kReviewHeader);
  if (!dataset.decisions.empty()) text = dataset.decisions;
  for (size_t k = 0; k < found.doubtful; ++k) {
    const LabelDoubt& doubt = found.ranking[k];
    const Sample& sample = dataset.samples.at(doubt.sample);
    text += fmt::format("{},{},{},{:.2f},\n", csv_field(review_path(dataset, sample.path)),
                        csv_field(dataset.classes.at(static_cast<size_t>(sample.label))),
                        csv_field(dataset.classes.at(static_cast<size_t>(doubt.suggestion))),
                        doubt.confidence);
  }
  return text;
}

void require_review_replaceable(const Dataset& dataset, const fs::path& file) {
  if (!dataset.corrections.empty() && same_file(file, dataset.corrections)) return;
  const size_t decisions = count_decisions(file);
  if (decisions > 0)
    fail(ErrorKind::usage,
         "{}: there {} in it, which would be lost; give it as `corrections`, which carries them "
         "over, or choose another name",
         printable(file),
         decisions == 1 ? "is a decision" : fmt::format("are {} decisions", decisions));
}

void write_review(const Dataset& dataset, const LabelCheck& found, const fs::path& file) {
  require_review_replaceable(dataset, file);
  write_file_atomic(file, review_csv(dataset, found));
}

}  // namespace graft
