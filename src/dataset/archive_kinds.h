// The kinds of archives behind dataset/archive.h.
#pragma once

#include <filesystem>
#include <memory>
#include <span>

#include "dataset/archive.h"

namespace graft {

enum class ArchiveKind { none, zip, tar, compressed_tar, unread };
/// By a file's first bytes (512 are enough). Files that are zip archives by their form and
/// something else by their content (Office documents, .pth) count as archives.
ArchiveKind archive_kind(std::span<const std::byte> bytes);

std::shared_ptr<const Archive> open_zip(const std::filesystem::path& file);
/// `file` is read, `path` is what messages call it. One that `stays` where it is is opened whenever
/// something is read, so that there may be thousands; another may be removed once it is open.
std::shared_ptr<const Archive> open_tar(const std::filesystem::path& file,
                                        const std::filesystem::path& path, bool stays);
/// Decompresses it into the cache folder, unless it is there, and returns where.
std::filesystem::path decompressed_tar(const std::filesystem::path& path,
                                       const RunContext& context);

}  // namespace graft
