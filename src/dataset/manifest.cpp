#include "dataset/manifest.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "dataset/labels.h"
#include "dataset/split_names.h"
#include "dataset/table_file.h"

namespace graft {
namespace {

constexpr const char* kExpected =
    "expected a first line that names the columns path and label (and optionally split), "
    "separated by commas, and a line for each image";

struct Columns {
  size_t path;
  size_t label;
  size_t split;  // past the end: none
  bool spaced;   // spaces around the names, so around the values too
};

template <size_t N>
std::string first_of(const std::vector<std::string>& header,
                     const std::array<std::string_view, N>& list) {
  for (const std::string_view wanted : list)
    for (const std::string& field : header)
      if (column_name(field) == wanted) return field;
  return "";
}

/// Columns of 0 and 1, one for each class.
bool is_one_hot(const std::vector<CsvRow>& rows) {
  if (rows.size() < 2 || rows[0].fields.size() < 3 || rows[1].fields.size() < 3) return false;
  const std::vector<std::string>& values = rows[1].fields;
  return std::all_of(values.begin() + 1, values.end(), [](const std::string& value) {
    return value == "0" || value == "1" || value == "0.0" || value == "1.0";
  });
}

/// What is likely wrong with a header that does not name path and label.
std::string likely_cause(const std::string& line, const std::vector<CsvRow>& rows) {
  const std::vector<std::string>& header = rows[0].fields;
  if (is_one_hot(rows))
    return "its columns of 0 and 1 seem to stand for the classes; write each image's class into "
           "one column label";
  for (const auto& [separator, said] :
       {std::pair(';', "';'"), std::pair('\t', "tabs"), std::pair('|', "'|'")}) {
    if (header.size() == 1 && line.find(separator) != std::string::npos)
      return fmt::format("fields are separated by {}, expected ','", said);
  }
  constexpr std::array<std::string_view, 13> kPathNames = {
      "filename", "file",     "file_name", "filepath", "file_path",  "image", "image_path",
      "img",      "img_path", "image_id",  "imageid",  "image_name", "id"};
  constexpr std::array<std::string_view, 12> kLabelNames = {
      "class",   "category",   "class_name", "classname", "target", "labels",
      "species", "label_name", "breed",      "tag",       "y",      "class_id"};
  const bool has_path = std::any_of(header.begin(), header.end(), [](const std::string& field) {
    return column_name(field) == "path";
  });
  const bool has_label = std::any_of(header.begin(), header.end(), [](const std::string& field) {
    return column_name(field) == "label";
  });
  std::string out;
  const std::string path = has_path ? "" : first_of(header, kPathNames);
  const std::string label = has_label ? "" : first_of(header, kLabelNames);
  if (!path.empty()) out += fmt::format("rename '{}' to path", excerpt(path));
  if (!label.empty())
    out += fmt::format("{}rename '{}' to label", out.empty() ? "" : " and ", excerpt(label));
  if (!out.empty()) return out;
  const bool has_image = std::any_of(header.begin(), header.end(), [](const std::string& field) {
    return has_image_extension(field);
  });
  if (has_image) return "it seems to have no header; begin it with the line path,label";
  return "";
}

Columns find_columns(const std::vector<CsvRow>& rows, const std::string& line,
                     const std::string& name) {
  const std::vector<std::string>& header = rows[0].fields;
  Columns columns{header.size(), header.size(), header.size(), false};
  for (size_t i = 0; i < header.size(); ++i) {
    columns.spaced |= trimmed(header[i]) != header[i];
    for (const auto& [wanted, at] :
         {std::pair("path", &columns.path), std::pair("label", &columns.label),
          std::pair("split", &columns.split)}) {
      if (column_name(header[i]) != wanted) continue;
      if (*at < header.size())
        fail(ErrorKind::input, "{}: two columns are called '{}'", name, wanted);
      *at = i;
    }
  }
  if (columns.path == header.size() || columns.label == header.size()) {
    const std::string cause = likely_cause(line, rows);
    fail(ErrorKind::input, "{}: not a manifest: its first line is '{}'{}{}; {}", name,
         excerpt(line), cause.empty() ? "" : ": ", cause, kExpected);
  }
  return columns;
}

}  // namespace

Layout read_manifest(const fs::path& file) {
  const std::string name = printable(file);
  const auto [rows, first_line] = read_table_file(file, "manifest", kExpected, ",");
  const std::vector<std::string>& header = rows[0].fields;
  const Columns columns = find_columns(rows, first_line, name);
  Layout layout;
  layout.root = file;
  std::vector<std::string> ignored;
  for (size_t i = 0; i < header.size(); ++i)
    if (i != columns.path && i != columns.label && i != columns.split && !header[i].empty() &&
        header[i] != "content")  // a run's split.csv has it, and files may change
      ignored.push_back(header[i]);
  if (!ignored.empty())
    layout.notes.push_back(
        fmt::format("{}: columns that are not read: {}", name, label_list(ignored)));
  struct Seen {
    size_t line;
    std::string label;
    Split split;
  };
  std::map<fs::path, Seen> seen;
  std::map<std::string, std::string> written;  // label → how it was written first
  size_t joined = 0;
  size_t repeated = 0;
  for (size_t i = 1; i < rows.size(); ++i) {
    const CsvRow& row = rows[i];
    const std::string where = fmt::format("{}:{}", name, row.line);
    if (row.fields.size() != header.size())
      fail(ErrorKind::input, "{}: {} fields where the header has {}", where, row.fields.size(),
           header.size());
    const auto field = [&](size_t column) {
      const std::string& value = row.fields[column];
      return columns.spaced ? std::string(trimmed(value)) : value;
    };
    const std::string path = field(columns.path);
    if (path.empty()) fail(ErrorKind::input, "{}: the path is empty", where);
    LabelledImage image{file.parent_path() / path, "", Split::unassigned};
    const std::string label = field(columns.label);
    require_label(label, where);
    image.label = canonical_label(label);
    if (written.emplace(image.label, label).first->second != label) ++joined;
    if (columns.split < header.size()) {
      const std::string word = field(columns.split);
      if (word == "excluded") continue;  // as written by write_split
      if (!word.empty()) {
        const std::optional<Split> split = split_of_name(word);
        if (!split)
          fail(ErrorKind::input, "{}: split '{}' is none of train, val, test", where,
               excerpt(word));
        image.split = *split;
      }
    }
    const auto [at, fresh] = seen.emplace(fs::absolute(image.path).lexically_normal(),
                                          Seen{row.line, image.label, image.split});
    if (!fresh && at->second.label != image.label)
      fail(ErrorKind::input, "{}: '{}' has the label '{}' here and '{}' in line {}", where,
           excerpt(path), image.label, at->second.label, at->second.line);
    if (!fresh && at->second.split == image.split) {
      ++repeated;
      continue;
    }
    layout.images.push_back(std::move(image));
  }
  if (joined > 0)
    layout.notes.push_back(fmt::format(
        "{}: {} labels joined with others that differ by outer spaces or the form of accents", name,
        joined));
  if (repeated > 0)
    layout.notes.push_back(
        fmt::format("{}: {} lines name an image again; left out", name, repeated));
  if (layout.images.empty()) fail(ErrorKind::input, "{}: the manifest lists no image", name);
  std::map<Split, size_t> counts;
  for (const LabelledImage& image : layout.images) ++counts[image.split];
  std::vector<std::string> parts;
  parts.reserve(counts.size());
  for (const auto& [split, count] : counts)
    parts.push_back(fmt::format("{} {}", count,
                                split == Split::unassigned ? "without a split" : to_string(split)));
  layout.understood = fmt::format("a manifest of {} images", layout.images.size());
  if (counts.size() > 1 || !counts.contains(Split::unassigned))
    layout.understood += fmt::format(" ({})", fmt::join(parts, ", "));
  return layout;
}

}  // namespace graft
