#include "dataset/dataset.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <utility>

#include "base/file.h"
#include "dataset/csv.h"
#include "dataset/folders.h"
#include "graft/error.h"

namespace graft {
namespace {

constexpr const char* kExpected =
    "expected a folder of class folders (DATA/cat/*.jpg, DATA/dog/*.jpg), or one that holds train/ "
    "(and val/, test/)";

struct SplitFolder {
  std::string_view name;
  Split split;
};
constexpr std::array<SplitFolder, 7> kSplitFolders = {{{"train", Split::train},
                                                       {"seg_train", Split::train},
                                                       {"val", Split::validation},
                                                       {"validation", Split::validation},
                                                       {"valid", Split::validation},
                                                       {"test", Split::test},
                                                       {"seg_test", Split::test}}};

std::optional<Split> split_of_folder(std::string_view name) {
  for (const auto& entry : kSplitFolders)
    if (entry.name == name) return entry.split;
  return std::nullopt;
}

/// A folder whose only content is a folder of the same name stands for that one.
fs::path see_through(fs::path folder) {
  const std::vector<fs::path> entries = list_folder(folder);
  std::error_code error;
  if (entries.size() == 1 && entries[0].filename() == folder.filename() &&
      fs::is_directory(entries[0], error))
    return see_through(entries[0]);
  return folder;
}

/// Samples named by class, before the class table exists.
struct Named {
  fs::path path;
  std::string label;
  Split split;
};

/// Reads a folder of class folders.
void read_classes(const fs::path& given, Split split, std::vector<Named>& named,
                  std::vector<std::string>& notes) {
  const fs::path folder = see_through(given);
  size_t loose = 0;
  size_t others = 0;
  std::error_code error;
  for (const fs::path& entry : list_folder(folder)) {
    if (!fs::is_directory(entry, error)) {
      loose += has_image_extension(entry) ? 1 : 0;
      continue;
    }
    const std::vector<fs::path> images = walk_images(entry, others);
    if (images.empty())
      notes.push_back(
          fmt::format("{}: no picture in this class folder; ignored", printable(entry)));
    for (const fs::path& image : images) named.push_back({image, entry.filename().string(), split});
  }
  if (loose > 0)
    notes.push_back(fmt::format("{}: {} pictures lie outside the class folders; ignored",
                                printable(folder), loose));
  if (others > 0)
    notes.push_back(fmt::format("{}: {} files that are no .jpg, .jpeg, .png or .webp; ignored",
                                printable(folder), others));
}

size_t column(const std::vector<std::string>& header, std::string_view name) {
  return static_cast<size_t>(std::find(header.begin(), header.end(), name) - header.begin());
}

void read_manifest(const fs::path& file, std::vector<Named>& named) {
  const std::string name = printable(file);
  const std::vector<CsvRow> rows = parse_csv(read_text_file(file), name);
  if (rows.empty()) fail(ErrorKind::input, "{}: empty manifest; {}", name, kExpected);
  const std::vector<std::string>& header = rows[0].fields;
  const size_t path_at = column(header, "path");
  const size_t label_at = column(header, "label");
  const size_t split_at = column(header, "split");
  if (path_at == header.size() || label_at == header.size())
    fail(ErrorKind::input,
         "{}: not a manifest: its first line must name the columns path and label "
         "(and optionally split)",
         name);
  for (size_t i = 1; i < rows.size(); ++i) {
    const CsvRow& row = rows[i];
    if (row.fields.size() != header.size())
      fail(ErrorKind::input, "{}:{}: {} fields where the header has {}", name, row.line,
           row.fields.size(), header.size());
    Named sample{file.parent_path() / row.fields[path_at], row.fields[label_at], Split::unassigned};
    if (sample.label.empty()) fail(ErrorKind::input, "{}:{}: the label is empty", name, row.line);
    if (split_at < header.size() && !row.fields[split_at].empty()) {
      const std::string& text = row.fields[split_at];
      if (text == "excluded") continue;  // as written by write_split
      const std::optional<Split> split = split_of_folder(text);
      if (!split)
        fail(ErrorKind::input, "{}:{}: split '{}' is none of train, val, test", name, row.line,
             text);
      sample.split = *split;
    }
    named.push_back(std::move(sample));
  }
}

Dataset build(const fs::path& root, std::vector<Named> named, std::vector<std::string> notes) {
  Dataset dataset{root, {}, {}, std::move(notes)};
  std::set<std::string> names;
  for (const Named& sample : named) names.insert(sample.label);
  dataset.classes.assign(names.begin(), names.end());
  std::map<std::string, int> index;
  for (const std::string& name : dataset.classes)
    index.emplace(name, static_cast<int>(index.size()));
  std::sort(named.begin(), named.end(),
            [](const Named& a, const Named& b) { return a.path < b.path; });
  for (Named& sample : named)
    dataset.samples.push_back({std::move(sample.path), index.at(sample.label), sample.split});
  return dataset;
}

}  // namespace

std::string_view to_string(Split split) {
  switch (split) {
    case Split::train:
      return "train";
    case Split::validation:
      return "val";
    case Split::test:
      return "test";
    case Split::unassigned:
      break;
  }
  return "";
}

std::vector<size_t> Dataset::of(Split split) const {
  std::vector<size_t> indices;
  for (size_t i = 0; i < samples.size(); ++i)
    if (samples[i].split == split) indices.push_back(i);
  return indices;
}

bool Dataset::has(Split split) const {
  return std::any_of(samples.begin(), samples.end(),
                     [&](const Sample& sample) { return sample.split == split; });
}

Dataset open_dataset(const fs::path& data) {
  std::error_code error;
  if (!fs::exists(data, error))
    fail(ErrorKind::input, "{}: no such file or folder; {}", printable(data), kExpected);
  std::vector<Named> named;
  std::vector<std::string> notes;
  if (!fs::is_directory(data, error)) {
    if (has_image_extension(data))
      fail(ErrorKind::input, "{}: a single picture; {}", printable(data), kExpected);
    read_manifest(data, named);
    if (named.empty()) fail(ErrorKind::input, "{}: the manifest lists no picture", printable(data));
    return build(data, std::move(named), std::move(notes));
  }

  const fs::path root = see_through(data);
  bool has_train = false;
  std::vector<std::pair<fs::path, Split>> split_folders;
  for (const fs::path& entry : list_folder(root)) {
    const std::optional<Split> split = split_of_folder(entry.filename().string());
    if (!split || !fs::is_directory(entry, error)) continue;
    has_train |= *split == Split::train;
    split_folders.emplace_back(entry, *split);
  }
  if (has_train) {
    for (const auto& [folder, split] : split_folders) read_classes(folder, split, named, notes);
    for (const fs::path& entry : list_folder(root))
      if (fs::is_directory(entry, error) && !split_of_folder(entry.filename().string()))
        notes.push_back(fmt::format("{}: neither train, val nor test; ignored", printable(entry)));
  } else {
    read_classes(root, Split::unassigned, named, notes);
  }
  if (named.empty())
    fail(ErrorKind::input, "{}: no class folder with pictures in it; {}", printable(data),
         kExpected);
  return build(root, std::move(named), std::move(notes));
}

void add_split(Dataset& dataset, const fs::path& folder, Split split) {
  const Dataset other = open_dataset(folder);
  for (const Sample& sample : other.samples) {
    const std::string& name = other.classes[sample.label];
    const auto at = std::find(dataset.classes.begin(), dataset.classes.end(), name);
    if (at == dataset.classes.end())
      fail(ErrorKind::input, "{}: class '{}' is not among the training classes ({})",
           printable(folder), name, fmt::join(dataset.classes, ", "));
    dataset.samples.push_back({sample.path, static_cast<int>(at - dataset.classes.begin()), split});
  }
  dataset.notes.insert(dataset.notes.end(), other.notes.begin(), other.notes.end());
}

std::string class_table(const Dataset& dataset) {
  constexpr std::array<Split, 4> kSplits = {Split::unassigned, Split::train, Split::validation,
                                            Split::test};
  std::vector<Split> columns;
  for (const Split split : kSplits)
    if (dataset.has(split)) columns.push_back(split);
  size_t width = 5;
  for (const std::string& name : dataset.classes) width = std::max(width, name.size());
  std::string text = fmt::format("{:<{}}", "class", width);
  for (const Split split : columns)
    text += fmt::format("  {:>8}", split == Split::unassigned ? "images" : to_string(split));
  text += '\n';
  std::vector<std::vector<size_t>> counts(dataset.classes.size() + 1,
                                          std::vector<size_t>(columns.size(), 0));
  for (const Sample& sample : dataset.samples) {
    const size_t at = std::find(columns.begin(), columns.end(), sample.split) - columns.begin();
    ++counts[sample.label][at];
    ++counts.back()[at];
  }
  for (size_t i = 0; i < counts.size(); ++i) {
    text += fmt::format("{:<{}}", i < dataset.classes.size() ? dataset.classes[i] : "total", width);
    for (const size_t count : counts[i]) text += fmt::format("  {:>8}", count);
    text += '\n';
  }
  return text;
}

}  // namespace graft
