#include "dataset/split_file.h"

#include <algorithm>
#include <optional>

#include "base/csv.h"
#include "base/fail.h"
#include "base/file.h"
#include "base/words.h"
#include "dataset/split_names.h"

namespace graft {
namespace {

bool is_aside(Split split) { return split == Split::validation || split == Split::test; }

}  // namespace

void write_split(const Dataset& dataset, const std::vector<size_t>& excluded,
                 const std::filesystem::path& file) {
  std::vector<bool> out(dataset.samples.size(), false);
  for (const size_t i : excluded) out[i] = true;
  std::string text = "path,label,split,content\n";
  for (size_t i = 0; i < dataset.samples.size(); ++i) {
    const Sample& sample = dataset.samples[i];
    // Absolute, so that the file works as a manifest from any folder.
    text += fmt::format("{},{},{},{}\n", csv_field(fs::absolute(sample.path).string()),
                        csv_field(dataset.classes[sample.label]),
                        out[i] ? "excluded" : to_string(sample.split), sample.content);
  }
  for (const SkippedImage& image : dataset.skipped)
    text += fmt::format("{},{},excluded,\n", csv_field(fs::absolute(image.path).string()),
                        csv_field(image.label));
  write_file_atomic(file, text);
}

std::vector<SplitRow> read_split(const std::filesystem::path& file) {
  const std::string name = printable(file);
  const std::vector<CsvRow> rows = parse_csv(read_text_file(file), name);
  const std::vector<std::string> with = {"path", "label", "split", "content"};
  const std::vector<std::string> without = {"path", "label", "split"};
  if (rows.empty() || (rows[0].fields != with && rows[0].fields != without))
    fail(ErrorKind::input, "{}: no split of graft: its first line must be path,label,split,content",
         name);
  std::vector<SplitRow> out;
  out.reserve(rows.size() - 1);
  for (size_t i = 1; i < rows.size(); ++i) {
    const std::vector<std::string>& f = rows[i].fields;
    if (f.size() != rows[0].fields.size())
      fail(ErrorKind::input, "{}:{}: {} fields where the header has {}", name, rows[i].line,
           f.size(), rows[0].fields.size());
    SplitRow row{file.parent_path() / f[0], f[1], Split::unassigned, f.size() > 3 ? f[3] : ""};
    if (f[2] != "excluded" && !f[2].empty()) {
      const std::optional<Split> split = split_of_name(f[2]);
      if (!split)
        fail(ErrorKind::input, "{}:{}: split '{}' is none of train, val, test, excluded", name,
             rows[i].line, clipped(f[2]));
      row.split = *split;
    }
    out.push_back(std::move(row));
  }
  return out;
}

KnownImages::KnownImages(const std::vector<SplitRow>& rows) {
  for (const SplitRow& row : rows) {
    if (row.split == Split::unassigned) continue;
    if (row.content.empty())
      by_path_.emplace(whole_path(row.path), &row);
    else
      by_content_.emplace(row.content, &row);
  }
}

const SplitRow* KnownImages::find(const Sample& sample) const {
  if (const auto at = by_content_.find(sample.content); at != by_content_.end()) return at->second;
  if (by_path_.empty()) return nullptr;
  const auto at = by_path_.find(whole_path(sample.path));
  return at == by_path_.end() ? nullptr : at->second;
}

TakenSplit take_split(Dataset& dataset, const std::vector<SplitRow>& rows,
                      const std::vector<SampleGroup>& together) {
  const KnownImages known(rows);
  TakenSplit out;
  out.settled.resize(dataset.samples.size());
  for (size_t i = 0; i < dataset.samples.size(); ++i) {
    Sample& sample = dataset.samples[i];
    const SplitRow* row = known.find(sample);
    if (row == nullptr) continue;
    if (is_aside(sample.split)) {
      out.learned += row->split == Split::train ? 1 : 0;
      continue;
    }
    sample.split = row->split;
    out.settled[i] = true;
    ++out.taken;
  }
  for (const SampleGroup& group : together) {
    std::optional<Split> side;
    for (const size_t i : group)
      if (out.settled[i] && side != Split::train) side = dataset.samples[i].split;
    if (!side) continue;
    for (const size_t i : group) {
      if (out.settled[i] || is_aside(dataset.samples[i].split)) continue;
      dataset.samples[i].split = *side;
      out.settled[i] = true;
    }
  }
  return out;
}

}  // namespace graft
