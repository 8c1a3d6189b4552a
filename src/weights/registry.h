// Published ImageNet weights: where they are, how large, and their checksums.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "graft/weights.h"

namespace graft {

using PublishedFile = PublishedWeights;

/// All files that Graft knows (FORMATS: keras/src/applications/vgg16.py, vgg19.py).
const std::vector<PublishedFile>& published_files();

/// The file for a backbone, or nullptr. With include_top only the full file will do.
const PublishedFile* find_published(std::string_view backbone, bool include_top);

/// The file with that MD5, or nullptr: recognises a published file under any name.
const PublishedFile* find_published_md5(std::string_view md5);

/// Where a published file lies once downloaded: <cache>/weights/<file>.
std::filesystem::path cached_path(const PublishedFile& file, const std::filesystem::path& cache);

/// Throws Error(input) that says what to do if the file at `path` is not the published one. Its MD5
/// is computed at the first call and remembered, with its size, times and inode, in <path>.checked.
void check_published(const PublishedFile& file, const std::filesystem::path& path);

/// The address to download from: the published one, or $GRAFT_WEIGHTS_MIRROR/<file>.
std::string download_url(const PublishedFile& file);

}  // namespace graft
