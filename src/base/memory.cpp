#include "base/memory.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

namespace graft {
namespace {

/// The number in a one-line file, or nothing ("max", absent).
bool read_number(const char* path, uint64_t& value) {
  std::ifstream file(path);
  return static_cast<bool>(file >> value);
}

}  // namespace

uint64_t available_memory() {
  uint64_t available = 0;
  std::ifstream meminfo("/proc/meminfo");
  std::string key;
  uint64_t value = 0;
  std::string unit;
  while (meminfo >> key >> value && std::getline(meminfo, unit))
    if (key == "MemAvailable:") available = value * 1024;
  uint64_t limit = 0;
  uint64_t used = 0;
  const bool limited = (read_number("/sys/fs/cgroup/memory.max", limit) &&
                        read_number("/sys/fs/cgroup/memory.current", used)) ||
                       (read_number("/sys/fs/cgroup/memory/memory.limit_in_bytes", limit) &&
                        read_number("/sys/fs/cgroup/memory/memory.usage_in_bytes", used));
  if (limited) {
    const uint64_t left = limit > used ? limit - used : 0;
    available = available == 0 ? left : std::min(available, left);
  }
  return available;
}

}  // namespace graft
