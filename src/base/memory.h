// How much memory this process may still take.
#pragma once

#include <cstdint>

namespace graft {

/// Bytes that can be had without swapping: MemAvailable, limited by the cgroup. 0 if unknown.
uint64_t available_memory();

}  // namespace graft
