#include "dataset/manifest.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "base/csv.h"
#include "base/fail.h"
#include "base/file.h"
#include "dataset/labels.h"
#include "dataset/split_names.h"

namespace graft {
namespace {

constexpr const char* kExpected =
    "expected a first line that names the columns path and label (and optionally split), "
    "separated by commas, and a line for each image";

std::string shown(std::string_view text) {
  constexpr size_t kShown = 80;
  return printable(std::string(text.substr(0, kShown))) + (text.size() > kShown ? "…" : "");
}

/// Encodings that put a NUL into every letter, by their byte order mark or by those NULs.
void require_utf8_text(std::string_view text, const std::string& name) {
  using namespace std::string_view_literals;
  const char* encoding = nullptr;
  if (text.starts_with("\xFF\xFE\0\0"sv) || text.starts_with("\0\0\xFE\xFF"sv))
    encoding = "UTF-32";
  else if (text.starts_with("\xFF\xFE") || text.starts_with("\xFE\xFF"))
    encoding = "UTF-16";
  constexpr size_t kHead = 64;
  const std::string_view head = text.substr(0, kHead);
  const auto nuls = static_cast<size_t>(std::count(head.begin(), head.end(), '\0'));
  const bool letters = std::all_of(head.begin(), head.end(), [](char c) {
    return c == '\0' || c == '\r' || c == '\n' || c == '\t' || (c >= ' ' && c <= '~');
  });
  if (encoding == nullptr && letters && nuls * 3 > head.size())
    encoding = nuls * 3 > 2 * head.size() ? "UTF-32" : "UTF-16";
  if (text.starts_with("PK\x03\x04"))
    fail(ErrorKind::input,
         "{}: a spreadsheet (.xlsx, .ods) or another zip archive; save it as CSV; {}", name,
         kExpected);
  if (encoding != nullptr)
    fail(ErrorKind::input, "{}: the file is {} (as some spreadsheets save text); save it as UTF-8",
         name, encoding);
  if (const size_t at = text.find('\0'); at != std::string_view::npos)
    fail(ErrorKind::input, "{}:{}: a NUL byte: this is no text file; {}", name,
         1 + std::count(text.begin(), text.begin() + static_cast<long>(at), '\n'), kExpected);
}

std::string_view trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

std::string column_name(std::string_view text) { return folded_label(trimmed(text)); }

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

/// Spreadsheets write "sep=,", people lines of remarks with '#', before the header: blanked, so
/// that lines keep their numbers.
void blank_preamble(std::string& text) {
  size_t at = 0;
  while (at < text.size()) {
    const size_t end = std::min(text.find_first_of("\r\n", at), text.size());
    const std::string_view line = std::string_view(text).substr(at, end - at);
    const bool separator = line.starts_with("sep=") && line.size() <= 6;
    if (!line.empty() && line[0] != '#' && !separator) return;
    text.erase(at, end - at);
    if (at < text.size()) ++at;  // past the end of the line, which stays
  }
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
  if (!path.empty()) out += fmt::format("rename '{}' to path", shown(path));
  if (!label.empty())
    out += fmt::format("{}rename '{}' to label", out.empty() ? "" : " and ", shown(label));
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
    fail(ErrorKind::input, "{}: not a manifest: its first line is '{}'{}{}; {}", name, shown(line),
         cause.empty() ? "" : ": ", cause, kExpected);
  }
  return columns;
}

}  // namespace

Layout read_manifest(const fs::path& file) {
  const std::string name = printable(file);
  std::string text = read_text_file(file);
  if (text.starts_with("\xEF\xBB\xBF")) text.erase(0, 3);
  require_utf8_text(text, name);
  if (text.find('\n') == std::string::npos)  // the ends of lines of old Macs
    std::replace(text.begin(), text.end(), '\r', '\n');
  blank_preamble(text);
  const size_t begin = text.find_first_not_of("\r\n");
  if (begin == std::string::npos) fail(ErrorKind::input, "{}: empty manifest; {}", name, kExpected);
  const std::string first_line = text.substr(begin, text.find_first_of("\r\n", begin) - begin);
  const std::vector<CsvRow> rows = parse_csv(text, name);
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
          fail(ErrorKind::input, "{}: split '{}' is none of train, val, test", where, shown(word));
        image.split = *split;
      }
    }
    const auto [at, fresh] = seen.emplace(fs::absolute(image.path).lexically_normal(),
                                          Seen{row.line, image.label, image.split});
    if (!fresh && at->second.label != image.label)
      fail(ErrorKind::input, "{}: '{}' has the label '{}' here and '{}' in line {}", where,
           shown(path), image.label, at->second.label, at->second.line);
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
