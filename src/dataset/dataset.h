// What else is done with datasets, beside opening them: graft/dataset.h.
#pragma once

#include <filesystem>
#include <string_view>
#include <vector>

#include "graft/dataset.h"
#include "graft/inspect.h"

namespace graft {

/// Adds the images of another folder as one split (`val` and `test` of a recipe's run, which
/// `option` names). Of a folder that has splits itself only the one that fits is taken. Classes are
/// joined by name; a class that `dataset` does not have is an error.
void add_split(Dataset& dataset, const std::filesystem::path& folder, Split split,
               std::string_view option, const RunContext& context = {});

/// Throws Error(usage) for a dataset filled by hand that contradicts itself: labels without a
/// class, classes of the same name or none, samples without a path.
void check_dataset(const Dataset& dataset);

/// Throws Error(usage) where findings are not of this dataset.
void check_inspection(const Dataset& dataset, const Inspection& found);

/// Throws Error(input) where there are no training images, or of one class alone.
void require_trainable(const Dataset& dataset);

/// True for the extensions that folders are searched for; content decides the decoder later.
bool has_image_extension(const std::filesystem::path& path);

}  // namespace graft
