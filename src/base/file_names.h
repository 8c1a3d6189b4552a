// Names for files that are made one for each of some others.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"

namespace graft {

/// The name, or where it is longer than names should be its beginning and a hash of the whole.
std::string short_name(const std::string& name);

/// One file name for each path, no two alike: the name without its extension, shortened where it is
/// long, then `extension` (with its dot). Of equal names all but the first get "-2", "-3", …,
/// passing over what another path is called. A function of the list alone.
std::vector<std::string> unique_file_names(std::span<const fs::path> paths,
                                           std::string_view extension);

}  // namespace graft
