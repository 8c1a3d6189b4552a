// What reviews of labels are made of: graft/labels.h has what is done with them.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "graft/dataset.h"

namespace graft {

/// How a review names an image: by its path below the data's folder, else by the whole path.
std::string review_path(const Dataset& dataset, const std::filesystem::path& image);

/// A line of a review, in which a spreadsheet computes nothing: paths begin with "./" and labels
/// with an apostrophe where they would be taken for formulas.
std::string review_line(const std::string& path, const std::string& label,
                        const std::string& suggestion, const std::string& confidence,
                        std::string_view action, const std::string& content);
/// A label of such a line as it was.
std::string label_of_field(std::string_view field);

/// The folder that such paths are relative to.
std::filesystem::path review_folder(const Dataset& dataset);

}  // namespace graft
