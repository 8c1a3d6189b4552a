// Global poolings over plain (C, H, W) maps, and the affine map of a BatchNorm that stands alone.
#pragma once

#include <cstdint>

#include "engine/fold.h"
#include "graft/network.h"

namespace graft::engine {

/// One image: `kind` is gap, gmp or stats; `maps` is (C, H·W), `out` is (C) or, for stats, (3C):
/// means, maxima, population standard deviations. Sums are in double.
void global_pool(LayerKind kind, const float* maps, int64_t channels, int64_t pixels, float* out);

/// One image in place.
void apply_affine(const Affine& affine, bool relu, float* maps, int64_t pixels);

}  // namespace graft::engine
