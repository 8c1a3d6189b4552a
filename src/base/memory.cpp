#include "base/memory.h"

#include <malloc.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <string>

#include "base/cgroup.h"
#include "base/limits.h"

namespace graft {
namespace {

namespace fs = std::filesystem;

/// The value of a "key value" line.
uint64_t read_field(const fs::path& path, const std::string& wanted) {
  std::ifstream file(path);
  std::string key;
  std::string rest;
  for (uint64_t value = 0; file >> key >> value; std::getline(file, rest))
    if (key == wanted) return value;
  return 0;
}

/// What a group's limit leaves. Pages of files that nothing has used for a while count as used
/// there, but are given up before anything else is refused.
std::optional<uint64_t> left_in(const Cgroup& group) {
  const auto limit =
      read_cgroup_number(group.folder / (group.unified ? "memory.max" : "memory.limit_in_bytes"));
  const auto used = read_cgroup_number(
      group.folder / (group.unified ? "memory.current" : "memory.usage_in_bytes"));
  if (!limit || !used) return std::nullopt;
  const uint64_t files = read_field(group.folder / "memory.stat",
                                    group.unified ? "inactive_file" : "total_inactive_file");
  const uint64_t needed = *used - std::min(*used, files);
  return *limit - std::min(*limit, needed);
}

}  // namespace

uint64_t available_memory(const fs::path& root) {
  std::optional<uint64_t> available;
  const auto bound = [&](std::optional<uint64_t> left) {
    if (left) available = std::min(available.value_or(*left), *left);
  };
  if (const uint64_t kilobytes = read_field(root / "proc/meminfo", "MemAvailable:"); kilobytes > 0)
    bound(kilobytes * 1024);
  for (const Cgroup& group : cgroups("memory", root)) bound(left_in(group));
  bound(address_space_left(root));
  bound(data_left(root));
  return available ? std::max<uint64_t>(*available, 1) : 0;
}

uint64_t freed_memory() { return ::mallinfo2().fordblks; }

}  // namespace graft
