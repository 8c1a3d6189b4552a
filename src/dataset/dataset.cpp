#include "dataset/dataset.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <set>
#include <tuple>
#include <utility>

#include "base/columns.h"
#include "base/fail.h"
#include "base/file.h"
#include "dataset/archive.h"
#include "dataset/labels.h"
#include "dataset/layout.h"
#include "dataset/manifest.h"
#include "dataset/named_files.h"
#include "dataset/tar_shards.h"

namespace graft {
namespace {

/// Numbers the classes.
Dataset build(Layout layout) {
  Dataset dataset;
  dataset.root = layout.root;
  dataset.notes = std::move(layout.notes);
  dataset.skipped = std::move(layout.unread);
  dataset.unread = std::move(layout.unread_counts);
  dataset.empty_classes = std::move(layout.empty);
  std::set<std::string> names;
  for (const LabelledImage& image : layout.images) names.insert(image.label);
  dataset.classes.assign(names.begin(), names.end());
  require_distinct(dataset.classes, printable(layout.root));
  for (std::string& note : look_alike_notes(dataset.classes))
    dataset.notes.push_back(std::move(note));
  dataset.understood = fmt::format("{}, {} {}", layout.understood, dataset.classes.size(),
                                   dataset.classes.size() == 1 ? "class" : "classes");
  std::map<std::string, int> index;
  for (const std::string& name : dataset.classes)
    index.emplace(name, static_cast<int>(index.size()));
  const auto by_path = [](const auto& a, const auto& b) { return a.path < b.path; };
  if (!std::is_sorted(layout.images.begin(), layout.images.end(), by_path))
    std::sort(layout.images.begin(), layout.images.end(), by_path);
  dataset.samples.reserve(layout.images.size());
  for (LabelledImage& image : layout.images)
    dataset.samples.push_back({std::move(image.path), index.at(image.label), image.split});
  return dataset;
}

/// A list of shards, or of images that lie in folders called as their classes.
Layout read_named(const fs::path& data, const std::vector<fs::path>& files,
                  const RunContext& context) {
  const bool images = has_image_extension(files[0]);
  const auto other = std::find_if(files.begin(), files.end(), [&](const fs::path& file) {
    return has_image_extension(file) != images;
  });
  if (other != files.end())
    fail(ErrorKind::input, "{}: {} is {}, unlike what stands before it; list images or tar files",
         printable(data), printable(*other), images ? "no image" : "an image");
  if (!images) return read_tar_shards(data, files, context);
  Layout layout;
  layout.root = data;
  for (const fs::path& file : files) {
    const fs::path folder = fs::absolute(file).lexically_normal().parent_path();
    const std::string label = folder.filename().string();
    require_label(label, printable(file));
    if (label.empty())
      fail(ErrorKind::input, "{}: {} lies in no class folder, so it has no label", printable(data),
           printable(file));
    layout.images.push_back({file, canonical_label(label)});
  }
  std::sort(layout.images.begin(), layout.images.end(),
            [](const auto& a, const auto& b) { return a.path < b.path; });
  const auto same = [](const auto& a, const auto& b) { return a.path == b.path; };
  layout.images.erase(std::unique(layout.images.begin(), layout.images.end(), same),
                      layout.images.end());
  layout.understood =
      fmt::format("a list of {} images, each in its class folder", layout.images.size());
  return layout;
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

Dataset open_dataset(const fs::path& data, const RunContext& context) {
  if (const std::optional<std::vector<fs::path>> files = named_files(data))
    return build(read_named(data, *files, context));
  const PathKind kind = kind_of_path(data, context);
  if (kind == PathKind::nothing) {
    std::error_code error;
    (void)fs::status(data, error);
    const bool known = error && error != std::errc::no_such_file_or_directory;
    fail(ErrorKind::input, "{}: {}; {}", printable(data),
         known ? error.message() : "no such file or folder", kExpectedLayout);
  }
  if (kind == PathKind::folder) {
    if (const std::vector<fs::path> shards = tar_shards_in(data); !shards.empty())
      return build(read_tar_shards(data, shards, context));
    const std::optional<InArchive> inside = find_in_archive(data, context);
    if (inside && inside->name.empty() && has_labelled_samples(*inside->archive))
      return build(read_tar_shards(data, {&data, 1}, context));
    return build(read_layout(data, context));
  }
  if (has_image_extension(data))
    fail(ErrorKind::input, "{}: a single image; {}", printable(data), kExpectedLayout);
  return build(read_manifest(data));
}

Dataset open_dataset(const fs::path& data, const fs::path& validation, const fs::path& test,
                     const RunContext& context) {
  Dataset dataset = open_dataset(data, context);
  for (const auto& [folder, split, name] :
       {std::tuple(&test, Split::test, "test"), {&validation, Split::validation, "val"}}) {
    if (folder->empty()) continue;
    if (dataset.has(split))
      fail(ErrorKind::usage, "`{}`: {} has a {} split already; leave one out", name,
           printable(data), split == Split::test ? "test" : "validation");
    // What has no training images, or one class, is told of first.
    require_trainable(dataset);
    add_split(dataset, *folder, split, fmt::format("`{}`", name), context);
  }
  dataset.validation = validation;
  dataset.test = test;
  return dataset;
}

void require_trainable(const Dataset& dataset) {
  if (!dataset.has(Split::train) && !dataset.has(Split::unassigned))
    fail(ErrorKind::input, "{}: there are no training images ({}); {}", printable(dataset.root),
         dataset.understood, kExpectedLayout);
  if (!dataset.empty_classes.empty())
    fail(ErrorKind::input,
         "{}, so that the classifier would not know the class{}; put images there, or remove the "
         "folder",
         dataset.empty_classes[0],
         dataset.empty_classes.size() == 1
             ? ""
             : fmt::format(" (and {} more)", dataset.empty_classes.size() - 1));
  if (dataset.classes.size() >= 2) return;
  std::string hidden;  // most likely the other one, as in a folder ".net"
  for (const std::string& note : dataset.notes)
    if (note.find("hidden folder") != std::string::npos ||
        note.find("no image") != std::string::npos)
      hidden += "; " + note;
  fail(ErrorKind::input,
       "{}: only one class ('{}'); a classifier needs at least two class folders{}; {}",
       printable(dataset.root), dataset.classes[0], hidden, kExpectedLayout);
}

void add_split(Dataset& dataset, const fs::path& folder, Split split, std::string_view option,
               const RunContext& context) {
  Dataset other = open_dataset(folder, context);
  const auto in_a_split = [](const Sample& sample) { return sample.split != Split::unassigned; };
  const bool has_splits = std::any_of(other.samples.begin(), other.samples.end(), in_a_split);
  if (has_splits && !other.has(split))
    fail(ErrorKind::input,
         "{}: {} has splits of its own ({}), but no {} split among them; name "
         "the folder of those images itself",
         option, printable(folder), other.understood, to_string(split));
  const auto fits = [&](Split of) { return !has_splits || of == split; };
  dataset.notes.push_back(fmt::format(
      "{} {}: understood as {}{}", option, printable(folder), other.understood,
      has_splits ? fmt::format("; the {} split alone is taken", to_string(split)) : ""));
  for (const Sample& sample : other.samples) {
    if (!fits(sample.split)) continue;
    const std::string& name = other.classes[sample.label];
    const int label = find_label(dataset.classes, name);
    if (label < 0)
      fail(ErrorKind::input, "{}: class '{}' is not among the training classes ({}){}",
           printable(folder), name, label_list(dataset.classes),
           near_label_hint(dataset.classes, name));
    dataset.samples.push_back({sample.path, label, split});
  }
  for (SkippedImage& image : other.skipped) {
    if (!fits(image.split)) continue;
    image.split = split;
    dataset.skipped.push_back(std::move(image));
  }
  dataset.notes.insert(dataset.notes.end(), other.notes.begin(), other.notes.end());
  for (const auto& [label, counts] : other.unread)
    for (const auto& [suffix, count] : counts) dataset.unread[label][suffix] += count;
}

std::string class_table(const Dataset& dataset) {
  constexpr std::array<Split, 4> kSplits = {Split::unassigned, Split::train, Split::validation,
                                            Split::test};
  std::vector<Split> columns;
  for (const Split split : kSplits)
    if (dataset.has(split)) columns.push_back(split);
  // Names are whole as long as the line fits a terminal of the usual width.
  constexpr size_t kColumns = 80;
  constexpr size_t kCountColumns = 10;
  size_t width = 5;
  for (const std::string& name : dataset.classes)
    width = std::max(width, columns_of(printable(name)));
  width = std::min(width, kColumns - kCountColumns * columns.size());
  std::string text = in_columns("class", width);
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
    text += in_columns(i < dataset.classes.size() ? printable(dataset.classes[i]) : "total", width);
    for (const size_t count : counts[i]) text += fmt::format("  {:>8}", count);
    text += '\n';
  }
  return text;
}

void check_dataset(const Dataset& dataset) {
  std::set<std::string_view> names;
  for (const std::string& name : dataset.classes) {
    require_label(name, "a class of the dataset");
    if (name.empty() || !names.insert(name).second)
      fail(ErrorKind::usage, "dataset: class '{}' is {}", printable(name),
           name.empty() ? "without a name" : "there twice");
  }
  for (const Sample& sample : dataset.samples) {
    if (sample.path.empty()) fail(ErrorKind::usage, "dataset: a sample without a path");
    if (sample.label < 0 || static_cast<size_t>(sample.label) >= dataset.classes.size())
      fail(ErrorKind::usage, "dataset: {}: label {} is none of the {} classes",
           printable(sample.path), sample.label, dataset.classes.size());
  }
}

}  // namespace graft
