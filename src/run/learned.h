// Which images a model has learned from, over all the runs that it goes back to.
#pragma once

#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "graft/dataset.h"
#include "graft/recipe.h"

namespace graft {

/// Contents (Sample::content) of images.
using Contents = std::set<std::string>;

/// The run folder of a model that is named by its folder or its file; nothing where it is none, or
/// does not say which images it had.
std::optional<std::filesystem::path> run_of_model(const std::filesystem::path& model);

/// Of the run's training images, and of those of the runs whose weights it went on from. Empty for
/// runs of versions that wrote no contents. Throws Error(input) for files that cannot be read.
Contents learned_contents(const std::filesystem::path& run);

/// The latter alone.
Contents learned_before(const std::filesystem::path& run);

/// The run whose weights the recipe goes on from, if they have learned from its images: with its
/// head, or with layers that it fine-tuned.
std::optional<std::filesystem::path> teacher(const Recipe& recipe);

/// Writes what learned_contents() finds later of the runs before: run_files::kLearnedBefore, or
/// nothing where the recipe goes on from none.
void write_learned_before(const Recipe& recipe, const std::filesystem::path& run);

/// How many of these images are among the learned. They have contents.
size_t count_learned(const std::vector<Sample>& samples, const Contents& learned);

/// Notes validation and test images that weights of that run have learned from. Samples have
/// contents.
void note_learned(Dataset& dataset, const std::filesystem::path& teacher);

}  // namespace graft
