// Walking folders of pictures.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace graft {

/// Entries of a folder, sorted by bytes, without hidden ones. Throws Error(io).
std::vector<std::filesystem::path> list_folder(const std::filesystem::path& folder);

/// Picture files below a folder, sorted; links followed, each real folder entered once. Files of
/// other kinds are counted in `others`.
std::vector<std::filesystem::path> walk_images(const std::filesystem::path& folder, size_t& others);

}  // namespace graft
