// What is new in the data of a run that goes on from another.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "graft/dataset.h"
#include "graft/recipe.h"

namespace graft {

struct ClassChange {
  std::string label;
  size_t before = 0;      ///< images that took part in the earlier run
  size_t now = 0;         ///< images at hand
  size_t fresh = 0;       ///< of them, those that the earlier run did not have
  size_t gone = 0;        ///< of its images, those that are no longer there
  size_t relabelled = 0;  ///< of those at hand, the ones that had another label
};

struct DataChanges {
  std::filesystem::path run;
  std::vector<ClassChange> classes;  ///< of both, sorted by label
};

/// The run that a recipe goes on from with its head, if it is one that says which images it had.
std::optional<std::filesystem::path> earlier_run(const Recipe& recipe);

/// Images are told apart by their content. Throws Error(input) for a run whose split.csv cannot be
/// read. Samples must have their contents.
DataChanges changes_since(const std::filesystem::path& run, const Dataset& dataset);

/// "since runs/a: 40 new images, 2 gone; class desert is new".
std::string changes_text(const DataChanges& changes);
/// For a page: a sentence and a table of the classes.
std::string changes_html(const DataChanges& changes);

}  // namespace graft
