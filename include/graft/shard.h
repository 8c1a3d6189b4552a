// Work that is cut into parts for processes that do not talk to each other.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#pragma GCC visibility push(default)
namespace graft {

/// One part of a list of images, of `count` that together are all of it.
struct Shard {
  uint32_t index = 0;  ///< from 0
  uint32_t count = 1;
};
inline constexpr uint32_t kMostShards = 100'000;

/// Which of the images are a shard's, in their order: decided by the hashes of their paths, so that
/// every process that has the same list knows it, and sizes differ by one at most. Throws
/// Error(usage) for a shard that is none.
std::vector<size_t> shard_members(std::span<const std::filesystem::path> images,
                                  const Shard& shard);

}  // namespace graft
#pragma GCC visibility pop
