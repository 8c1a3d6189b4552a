// Images that look alike to a person.
#pragma once

#include <cstdint>
#include <vector>

#include "graft/image.h"

namespace graft {

/// A perceptual hash: the signs of the 64 lowest frequencies of its 32 × 32 grey
/// version but the mean (pHash; Zauner, "Implementation and benchmarking of perceptual image hash
/// functions", 2010), and that version at 16 × 16.
inline constexpr size_t kLookSide = 16;
inline constexpr size_t kLookBytes = kLookSide * kLookSide;
struct PerceptualHash {
  uint64_t hash = 0;
  std::vector<uint8_t> grey;
};
PerceptualHash perceptual_hash(const Image& image);

/// At most `kHashBits` signs differ, and the small images correlate by `kCorrelation`.
bool near_duplicate(const PerceptualHash& a, const PerceptualHash& b);

}  // namespace graft
