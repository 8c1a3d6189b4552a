// Published ImageNet weights: where they are, how large, and their checksums.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "graft/context.h"
#include "graft/weights.h"

namespace graft {

using PublishedFile = PublishedWeights;

/// See published_weights() and find_published_weights(); the backbone's name is Graft's.
const std::vector<PublishedFile>& published_files();
const PublishedFile* find_published(std::string_view backbone, bool include_top,
                                    std::string_view family = {});

/// The published file that one is, by its hash, under any name; null: none. `md5` is the file's.
const PublishedFile* recognise_published(const std::filesystem::path& path, const std::string& md5);

/// Whether the hash that is published is the file's.
bool has_published_hash(const PublishedFile& file, const std::filesystem::path& path);
/// Whether a file of so many bytes may be the published one.
bool may_have_size(const PublishedFile& file, uint64_t bytes);

/// What the user says for "published weights of some family": imagenet, which takes the first, or a
/// family's name. The family for find_published(); none: it is no such word.
std::optional<std::string_view> published_family(std::string_view weights);

/// Where a published file lies once downloaded: <cache>/weights/<file>.
std::filesystem::path cached_path(const PublishedFile& file, const std::filesystem::path& cache);

/// Throws Error(input) that says what to do if the file at `path` is not the published one. Its
/// hash is computed at the first call and remembered, with its size, times and inode, in
/// <path>.checked.
void check_published(const PublishedFile& file, const std::filesystem::path& path);

/// Downloads into the cache what is not there. Throws Error(io).
void fetch_published(const PublishedFile& file, const std::filesystem::path& cache,
                     const RunContext& context);

/// Copies a published file that lies elsewhere into the cache, atomically. Throws Error(io).
void store_published(const PublishedFile& file, const std::filesystem::path& source,
                     const std::filesystem::path& cache);

/// The address to download from: the published one, or $GRAFT_WEIGHTS_URL/<file>.
std::string download_url(const PublishedFile& file);

}  // namespace graft
