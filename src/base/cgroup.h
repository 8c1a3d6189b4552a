// The control groups that hold this process, in which containers and batch systems set limits.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string_view>
#include <vector>

namespace graft {

struct Cgroup {
  std::filesystem::path folder;
  bool unified = true;  ///< of version 2
};

/// The groups of one controller ("memory", "cpu") that this process is in, innermost first and up
/// to the outermost that can be seen: the limit of each one counts. Looked up in /proc and /sys
/// under `root`. Empty where there are none.
std::vector<Cgroup> cgroups(std::string_view controller, const std::filesystem::path& root = "/");

/// The number in a one-line file; nothing if it is absent or says "max".
std::optional<uint64_t> read_cgroup_number(const std::filesystem::path& file);

}  // namespace graft
