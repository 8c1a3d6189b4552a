// Steps on blocked activations that are no convolution. Each is taken by all members of a team
// together, for images [first, first + count), and ends inside a region.
#pragma once

#include "engine/buffer.h"
#include "engine/fold.h"
#include "engine/team.h"

namespace graft::engine {

/// From plain (N, C, H, W) to maps, and back.
void to_maps(Team::Member& member, const float* plain, const Maps& maps, int first, int count);
void to_plain(Team::Member& member, const Maps& maps, float* plain, int first, int count);

/// 2×2 max-pooling where no convolution precedes it.
void pool(Team::Member& member, const Maps& in, const Maps& out, int first, int count);

/// A BatchNorm that stands alone, with or without ReLU.
void normalise(Team::Member& member, const Affine& affine, bool relu, const Maps& in,
               const Maps& out, int first, int count);

}  // namespace graft::engine
