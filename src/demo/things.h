// Procedural images of six kinds of thing, which are not scenes: to see whether what a backbone
// learned from scenes serves for anything else.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "graft/image.h"

namespace graft {

inline constexpr std::array<std::string_view, 6> kThingNames = {"butterfly", "car",    "cup",
                                                                "fish",      "flower", "umbrella"};

/// An image of thing `kind` (index into kThingNames), in any colours on any ground, so that only
/// its shape tells what it is; the same for the same (kind, seed) on every machine.
Image draw_thing(size_t kind, uint64_t seed, int size);

}  // namespace graft
