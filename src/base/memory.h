// How much memory this process may still take.
#pragma once

#include <cstdint>
#include <filesystem>

namespace graft {

/// Bytes that can be had without swapping: MemAvailable, less where a control group or a limit of
/// the process (ulimit -v, -d) leaves less. 0 if unknown, and 1 where nothing is left. The state of
/// the system is read from /proc and /sys under `root`.
uint64_t available_memory(const std::filesystem::path& root = "/");

/// Bytes that this process has freed and its allocator keeps, which no count of the system shows as
/// available. They may lie in pieces.
uint64_t freed_memory();

}  // namespace graft
