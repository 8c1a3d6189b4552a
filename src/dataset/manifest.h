// CSV manifests: path,label[,split].
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "dataset/layout.h"

namespace graft {

/// Reads a manifest; paths are relative to its folder. Throws Error(input) that shows the header
/// that was found and says what is likely wrong with it, or names the line.
Layout read_manifest(const std::filesystem::path& file);

}  // namespace graft
