// What reviews of labels are made of: graft/labels.h has what is done with them.
#pragma once

#include <filesystem>
#include <string>

#include "graft/dataset.h"

namespace graft {

/// How a review names an image: by its path below the data's folder, else by the whole path.
std::string review_path(const Dataset& dataset, const std::filesystem::path& image);

/// The folder that such paths are relative to.
std::filesystem::path review_folder(const Dataset& dataset);

/// Rows with a decision in a file that is a review; 0 where it is none.
size_t count_decisions(const std::filesystem::path& file);

}  // namespace graft
