// Labelled images in tar files, as WebDataset lays them out: the members of a sample have one name
// up to its first dot, "n01/0007.jpg" and "n01/0007.cls".
#pragma once

#include <filesystem>
#include <span>
#include <vector>

#include "dataset/archive.h"
#include "dataset/layout.h"

namespace graft {

/// The tar files directly in a folder, sorted, where it holds neither images nor folders; of a
/// folder of folders called as splits those in them. Else none.
std::vector<std::filesystem::path> tar_shards_in(const std::filesystem::path& folder);

/// Whether an archive that was named alone is laid out so: there is a .cls in it, or a .json beside
/// an image, and no class folders.
bool has_labelled_samples(const Archive& archive);

/// Reads the labels of all samples; images stay where they are. `data`: as it was named. Throws
/// Error(input) where labels contradict the list of classes, or none has one.
Layout read_tar_shards(const std::filesystem::path& data,
                       std::span<const std::filesystem::path> shards, const RunContext& context);

}  // namespace graft
