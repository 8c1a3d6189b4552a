// How a 3×3 convolution is cut into Winograd tiles.
#pragma once

#include <cstdint>
#include <string>

namespace graft::engine {

/// One direction of a map, cut into `count` tiles of `main` output pixels and then one of `last`
/// (0: none). Only the very last tile may reach past the map's edge.
struct TileAxis {
  int main = 6;   ///< 4 or 6
  int count = 0;  ///< may be 0 where the map is smaller than a tile
  int last = 0;   ///< 0, 2 or 4

  [[nodiscard]] int reach() const { return main * count + last; }
  bool operator==(const TileAxis&) const = default;
};

/// How a Winograd layer is computed. The tiles and `depth` (the order of summation) decide the
/// result and depend on shapes alone; the rest is scheduling.
struct ConvolutionPlan {
  TileAxis rows, columns;
  /// Input channels summed in registers before products are added up in memory: 256 × 16 weights
  /// (16 KB) and 256 × 6 inputs (6 KB) lie in a first-level cache of 32 KB together.
  int depth = 256;
  int outputs = 16;     ///< output channels in a chunk, a multiple of 16
  bool shared = false;  ///< one block for the whole team, outputs divided; else a block each

  bool operator==(const ConvolutionPlan&) const = default;
};

/// The plan for C → K channels on height × width maps: a pure function. `single`: image by image,
/// else whole batches. `forced`: 0 to choose; for tests and measurements 4 or 6, or 42, 62, 64: 6
/// with a last tile of 4 wherever one is enough.
ConvolutionPlan plan_convolution(int64_t channels, int64_t outputs, int64_t height, int64_t width,
                                 bool single, int forced);

/// Floats of transformed weights that stand for the nine of one kernel: for tiles of every size
/// that the plan has.
int weights_per_kernel(const ConvolutionPlan& plan);

/// "F(6x6)", or with tiles of two sizes "F(6+2 x 6+4)".
std::string tile_name(const ConvolutionPlan& plan);

}  // namespace graft::engine
