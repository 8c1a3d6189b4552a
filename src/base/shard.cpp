#include "graft/shard.h"

#include <xxhash.h>

#include <algorithm>
#include <utility>

#include "base/fail.h"
#include "base/file.h"

namespace graft {

std::vector<size_t> shard_members(std::span<const fs::path> images, const Shard& shard) {
  if (shard.count < 1 || shard.count > kMostShards || shard.index >= shard.count)
    fail(ErrorKind::usage, "shard {} of {}: shards are numbered from 0 to their number - 1",
         shard.index, shard.count);
  std::vector<std::pair<uint64_t, size_t>> order;
  order.reserve(images.size());
  for (size_t i = 0; i < images.size(); ++i)
    order.emplace_back(XXH3_64bits(images[i].native().data(), images[i].native().size()), i);
  const auto place = [&](uint64_t k) {
    return order.begin() + static_cast<std::ptrdiff_t>(order.size() * k / shard.count);
  };
  const auto first = place(shard.index);
  const auto last = place(shard.index + 1);
  std::nth_element(order.begin(), first, order.end());
  std::nth_element(first, last, order.end());
  std::vector<size_t> members;
  members.reserve(static_cast<size_t>(last - first));
  for (auto at = first; at != last; ++at) members.push_back(at->second);
  std::sort(members.begin(), members.end());
  return members;
}

}  // namespace graft
