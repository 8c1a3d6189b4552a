#include "run/prepare.h"

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "base/fail.h"
#include "base/file.h"
#include "base/words.h"
#include "dataset/archive.h"
#include "dataset/dataset.h"
#include "dataset/labels.h"
#include "dataset/skipped.h"
#include "dataset/split.h"
#include "dataset/split_file.h"
#include "graft/inspect.h"
#include "graft/run_files.h"
#include "run/learned.h"

namespace graft {
namespace {

/// A class of which `exclude` leaves nothing is an error that says why.
void require_what_is_left(const Dataset& dataset, const Inspection& found,
                          const std::vector<size_t>& out, const Recipe& recipe) {
  std::vector<size_t> left(dataset.classes.size());
  for (const Sample& sample : dataset.samples) ++left[static_cast<size_t>(sample.label)];
  for (const size_t i : out) --left[static_cast<size_t>(dataset.samples[i].label)];
  for (const size_t i : out) {
    const auto label = static_cast<size_t>(dataset.samples[i].label);
    if (left[label] > 0) continue;
    const auto damaged = std::find_if(found.corrupt.begin(), found.corrupt.end(),
                                      [&](const Finding& finding) { return finding.sample == i; });
    fail(ErrorKind::input,
         "{}: class '{}': `exclude {}` leaves none of its images, the first: {}{}",
         printable(dataset.root), dataset.classes[label], clipped(recipe.data.exclude),
         printable(dataset.samples[i].path),
         damaged == found.corrupt.end() ? "" : " (" + damaged->why + ")");
  }
}

/// Leaves out what `exclude` names, and notes what else looks wrong, as `graft check` finds it.
void inspect_dataset(Dataset& dataset, const Recipe& recipe, const RunContext& context) {
  const std::vector<std::string> words = split_words(recipe.data.exclude);
  auto depth = InspectionDepth::copies;
  for (const std::string& word : words) depth = std::max(depth, depth_of(word));
  const Inspection found = inspect(dataset, depth, context);
  const std::vector<size_t> out = excluded_samples(dataset, found, words);
  const auto note = [&](const std::vector<SampleGroup>& groups, std::string_view word,
                        std::string_view what) {
    if (!groups.empty() && std::find(words.begin(), words.end(), word) == words.end())
      dataset.notes.push_back(fmt::format("{} {} of identical files {}; `exclude {}` leaves {} out",
                                          groups.size(), groups.size() == 1 ? "group" : "groups",
                                          what, word,
                                          word == "leaks"       ? "the training copies"
                                          : word == "conflicts" ? "them"
                                                                : "the copies"));
  };
  note(found.conflicting_labels, "conflicts", "with conflicting labels");
  note(found.train_test_leaks, "leaks", "are in training and test data");
  note(found.train_val_leaks, "leaks", "are in training and validation data");
  if (found.conflicting_labels.empty() && found.train_test_leaks.empty() &&
      found.train_val_leaks.empty())
    note(found.duplicates, "duplicates", "in one class");
  if (!out.empty()) {
    require_what_is_left(dataset, found, out, recipe);
    dataset.notes.push_back(
        fmt::format("`exclude`: {} of {} images left out", out.size(), dataset.samples.size()));
    std::vector<Sample> kept;
    for (size_t i = 0, next = 0; i < dataset.samples.size(); ++i) {
      if (next < out.size() && out[next] == i)
        ++next;
      else
        kept.push_back(std::move(dataset.samples[i]));
    }
    dataset.samples = std::move(kept);
  }
}

/// Notes classes that a split cannot measure.
void note_classes_without(Dataset& dataset, Split split) {
  if (!dataset.has(split)) return;
  const std::vector<std::string> without = classes_without(dataset, split, {});
  if (!without.empty())
    dataset.notes.push_back(fmt::format("no {} image of {} {}", to_string(split),
                                        without.size() == 1 ? "class" : "the classes",
                                        label_list(without)));
}

/// Leaves out files that are not there or of formats that are not read: better now, in one line,
/// than one by one later.
void check_missing(Dataset& dataset, const Recipe& recipe) {
  const std::vector<std::string> words = split_words(recipe.data.exclude);
  if (std::find(words.begin(), words.end(), "corrupt") != words.end())
    dataset.skipped.clear();  // of other formats: asked to be left out, and noted
  leave_out_missing(dataset);
  const size_t images = dataset.samples.size() + dataset.skipped.size();
  std::string advice =
      "mend or remove them ('graft check' lists them, and damaged ones beside), "
      "leave them out with `exclude corrupt`";
  if (kind_of_path(dataset.root) != PathKind::folder) {
    advice = "paths of a manifest are relative to its folder; mend or remove them";
    for (const SkippedImage& image : dataset.skipped) {
      const fs::path typed = image.path.lexically_relative(dataset.root.parent_path());
      std::error_code error;
      if (typed.empty() || !fs::exists(typed, error)) continue;
      advice = fmt::format(
          "paths of a manifest are relative to its folder, not to the current one, where {} is: "
          "write them so, or move the manifest here",
          printable(typed));
      break;
    }
  }
  require_few_skipped(dataset.skipped, images, recipe.data.max_skipped, printable(dataset.root),
                      advice);
}

/// Every class must be trained on; one that stands in another split alone is most often misspelt.
void require_training_images(const Dataset& dataset, const Recipe& recipe) {
  const std::vector<std::string> without = classes_without(dataset, Split::train, {});
  if (without.empty()) return;
  std::string why = recipe.data.exclude.empty() ? "" : "; `exclude` may have left them all out";
  for (const Sample& sample : dataset.samples) {
    if (dataset.classes[static_cast<size_t>(sample.label)] != without[0]) continue;
    std::vector<std::string> trained;
    for (const std::string& label : dataset.classes)
      if (std::find(without.begin(), without.end(), label) == without.end())
        trained.push_back(label);
    why = fmt::format("; its {} images are the only ones, such as {} (the training classes are {})",
                      to_string(sample.split), printable(sample.path), label_list(trained));
    break;
  }
  fail(ErrorKind::input, "{}: class '{}' has no training image{}{}", printable(dataset.root),
       without[0],
       without.size() > 1 ? fmt::format(", nor have {} others", without.size() - 1) : "", why);
}

/// `split-from`: the sides of the images that an earlier run has, and what that means.
TakenSplit take_split_from(Dataset& dataset, const Recipe& recipe,
                           const std::optional<fs::path>& weights_of,
                           const std::vector<SampleGroup>& together) {
  const std::string& run = recipe.data.split_from;
  const fs::path file = fs::path(run) / run_files::kSplit;
  require_reachable(file);
  std::error_code error;
  if (!fs::exists(file, error))
    fail(ErrorKind::usage, "`split-from`: {} is no run folder: it has no {}",
         printable(fs::path(run)), run_files::kSplit);
  TakenSplit taken = take_split(dataset, read_split(file), together);
  if (taken.taken == 0 && taken.learned == 0)
    fail(ErrorKind::usage,
         "`split-from`: none of the {} images is one of {}'s; leave the option out, or name a run "
         "on these images",
         dataset.samples.size(), printable(fs::path(run)));
  dataset.notes.push_back(fmt::format("`split-from`: {} of {} images are split as in {}",
                                      taken.taken, dataset.samples.size(),
                                      printable(fs::path(run))));
  if (taken.learned > 0 && weights_of != run_of_model(run))
    dataset.notes.push_back(
        fmt::format("`split-from`: {} {} set aside here and {} trained on in {}", taken.learned,
                    taken.learned == 1 ? "image is" : "images are",
                    taken.learned == 1 ? "was" : "were", printable(fs::path(run))));
  return taken;
}

/// Sets validation images aside, and test images where the recipe says so.
/// `weights_of`: the run that the weights have learned in.
void split(Dataset& dataset, const Recipe& recipe, const std::optional<fs::path>& weights_of,
           const RunContext& context) {
  if (recipe.data.test_split > 0 && dataset.has(Split::test))
    fail(ErrorKind::usage, "`test-split`: {} has a test split already; leave one out",
         printable(dataset.root));
  const bool own_validation = dataset.has(Split::validation);
  if (own_validation && recipe.data.val_split != Recipe{}.data.val_split)
    dataset.notes.push_back("`val-split`: not used, the data has a validation split");
  std::vector<SampleGroup> together;
  if (recipe.data.group_near_duplicates)
    together = inspect(dataset, InspectionDepth::pixels, context).near_duplicates;
  TakenSplit taken;
  if (!recipe.data.split_from.empty())
    taken = take_split_from(dataset, recipe, weights_of, together);
  // Of a run with validation images of its own all others have a side, and none is left for it.
  if (!own_validation && taken.taken == dataset.samples.size() && !dataset.has(Split::validation))
    fail(
        ErrorKind::usage,
        "`split-from`: {} had its validation images elsewhere, and none of these is one; name them "
        "with `val`",
        printable(fs::path(recipe.data.split_from)));
  // Another stream of the seed than the validation split's.
  if (recipe.data.test_split > 0)
    split_off(dataset,
              {recipe.data.test_split, ~recipe.seed, Split::test, own_validation ? size_t{1} : 2},
              together, taken.settled);
  if (!own_validation)
    split_off(dataset, {recipe.data.val_split, recipe.seed, Split::validation}, together,
              taken.settled);
  for (Sample& sample : dataset.samples)
    if (sample.split == Split::unassigned) sample.split = Split::train;
}

}  // namespace

void prepare_dataset(Dataset& dataset, const Recipe& recipe, const RunContext& context) {
  require_trainable(dataset);
  const bool has_val = dataset.has(Split::validation);
  check_missing(dataset, recipe);
  if (has_val && !dataset.has(Split::validation))
    fail(ErrorKind::input, "{}: none of the validation images is there", printable(dataset.root));
  read_contents(dataset, context);
  inspect_dataset(dataset, recipe, context);
  const std::optional<fs::path> weights_of = teacher(recipe);
  split(dataset, recipe, weights_of, context);
  if (weights_of) note_learned(dataset, *weights_of);
  require_training_images(dataset, recipe);
  note_classes_without(dataset, Split::validation);
  note_classes_without(dataset, Split::test);
}

}  // namespace graft
