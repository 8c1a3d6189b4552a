// Reading from a place in an open file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>

namespace graft {

/// Reads what is there of `count` bytes. Throws Error(io) that names `path`.
std::string read_at(int fd, uint64_t offset, size_t count, const std::filesystem::path& path);

}  // namespace graft
