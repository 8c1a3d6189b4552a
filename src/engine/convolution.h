// 3×3 convolution + bias + ReLU (+ 2×2 max-pooling) as one fused operation.
//
// Winograd: a block of tiles is transformed into a buffer that stays in cache, multiplied by
// weights that were transformed and packed once, and transformed back with bias, ReLU and pooling
// before it leaves the core. The first layer (few channels) is computed directly.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/buffer.h"
#include "engine/fold.h"
#include "engine/team.h"

namespace graft::engine {

/// How a Winograd layer is computed. `tile` and `depth` (the order of summation) decide the result
/// and depend on shapes alone; the rest is scheduling.
struct ConvolutionPlan {
  int tile = 6;         ///< m of F(m×m, 3×3): 4 or 6
  int depth = 256;      ///< input channels summed before products are added up in memory
  int tiles = 24;       ///< tiles in a block, a multiple of 6
  int outputs = 16;     ///< output channels in a chunk, a multiple of 16
  bool shared = false;  ///< one block for the whole team, outputs divided; else a block each
};

/// The plan for C → K channels on height × width maps: a pure function. `single`: batches of one
/// image. `forced_tile`: 4 or 6 for tests and measurements, 0 to choose.
ConvolutionPlan plan_convolution(int64_t channels, int64_t outputs, int64_t height, int64_t width,
                                 bool single, int forced_tile);

/// A convolution with its packed weights.
class Convolution {
 public:
  Convolution(const Shape& in, const Shape& out, const ConvolutionPlan& plan,
              const FoldedLayer& weights, bool pool, Team& team);

  /// "F(6x6) shared 72x16": tile, whose blocks, tiles × outputs in a block.
  [[nodiscard]] std::string description() const;
  /// Floats of packed weights.
  [[nodiscard]] size_t packed() const { return weights_.size(); }
  /// Floats of scratch memory: for each member of the team, and for all together.
  [[nodiscard]] size_t private_scratch() const;
  [[nodiscard]] size_t shared_scratch() const;

  /// Images [first, first + count), by all members of a team together; ends inside a region.
  void run(Team::Member& member, const Maps& in, const Maps& out, int first, int count,
           float* private_scratch, float* shared_scratch) const;

 private:
  struct Block;
  void pack(const FoldedLayer& weights, Team& team);
  void transform_inputs(const Block& block, int tile_begin, int tile_end, int channel_begin,
                        int channel_end, float* v) const;
  void multiply_chunk(const Block& block, int chunk, const float* v, float* products) const;
  void transform_outputs(const Block& block, int chunk, const float* products) const;

  int channels_;  // rounded up to 8
  int outputs_;   // rounded up to 16
  int height_, width_;
  ConvolutionPlan plan_;
  bool pool_;
  bool relu_;
  size_t input_stride_;    // floats between frequencies of transformed input
  size_t product_stride_;  // floats between frequencies of products
  Buffer weights_;
  Buffer bias_;
};

/// Direct convolution of planes with few channels, for a network's first layer.
class FirstConvolution {
 public:
  FirstConvolution(const Shape& in, const FoldedLayer& weights);

  /// Floats of the padded copy of one image's planes.
  [[nodiscard]] size_t padded_image() const;
  void pad(Team::Member& member, const float* in, float* padded, int count) const;
  void run(Team::Member& member, const float* padded, const Maps& out, int first, int count) const;

 private:
  int channels_, height_, width_;
  int outputs_;  // rounded up to 16
  bool relu_;
  Buffer weights_;  // [outputs / 16][channels][3][3][16]
  Buffer bias_;
};

}  // namespace graft::engine
