// Procedural images of six kinds of scene, so that the demo and the tests need no data.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "graft/image.h"

namespace graft {

inline constexpr std::array<std::string_view, 6> kSceneNames = {"buildings", "forest", "glacier",
                                                                "mountain",  "sea",    "street"};

/// An image of scene `kind` (index into kSceneNames); the same for the same (kind, seed) on every
/// machine. `size` × `size` pixels.
Image draw_scene(size_t kind, uint64_t seed, int size);

}  // namespace graft
