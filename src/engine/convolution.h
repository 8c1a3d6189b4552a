// 3×3 convolution + bias + ReLU (+ 2×2 max-pooling) as one fused operation.
//
// Winograd: a block of tiles is transformed into a buffer that stays in cache, multiplied by
// weights that were transformed and packed once, and transformed back with bias, ReLU and pooling
// before it leaves the core. A network's first convolution, of few channels, can be computed inside
// the input stage of the second, so that its activations never reach memory.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/buffer.h"
#include "engine/convolution_plan.h"
#include "engine/first_convolution.h"
#include "engine/fold.h"
#include "engine/team.h"

namespace graft::engine {

/// A convolution with its packed weights.
class Convolution {
 public:
  /// `first`: the layer before, computed in this one's input stage; null for none. It must outlive
  /// this and the plan must not be a shared one.
  Convolution(const Shape& in, const Shape& out, const ConvolutionPlan& plan,
              const FoldedLayer& weights, bool pool, const FirstConvolution* first, Team& team);

  /// "F(6x6) private 24x16": tile, whose blocks, tiles × outputs in a block.
  [[nodiscard]] std::string description() const;
  /// Floats of packed weights.
  [[nodiscard]] size_t packed() const;
  /// Floats of scratch memory: for each member of the team, and for all together.
  [[nodiscard]] size_t private_scratch() const;
  [[nodiscard]] size_t shared_scratch() const;

  /// Images [first, first + count), by all members of a team together; ends inside a region.
  /// `padded`: the images as FirstConvolution::pad left them, read instead of `in` where there is a
  /// first convolution.
  void run(Team::Member& member, const Maps& in, const float* padded, const Maps& out, int first,
           int count, float* private_scratch, float* shared_scratch) const;

 private:
  struct Block;
  /// The tiles of one size: a grid of them from (y, x) on.
  struct Part {
    TileSize size;
    int y, x;
    int down, across;
    int block;              // tiles in a block, whole groups
    size_t input_stride;    // floats between frequencies of transformed input
    size_t product_stride;  // floats between frequencies of products
    Buffer weights;

    [[nodiscard]] size_t inputs() const { return size.frequencies() * input_stride; }
    [[nodiscard]] size_t products() const { return size.frequencies() * product_stride; }
    /// Tiles in each block for this many images. Blocks are of equal size and as many for each
    /// thread, or the team would wait for the last one.
    [[nodiscard]] int block_for(int images, int threads, int group) const;
  };

  void add_part(TileSize size, int y, int x, int down, int across, const FoldedLayer& weights,
                Team& team);
  void pack(Part& part, const FoldedLayer& weights, Team& team) const;
  [[nodiscard]] Block enter(const Part& part, const Maps& in, const Maps& out, int first, int count,
                            int size, int index) const;
  void transform_inputs(const Block& block, int tile_begin, int tile_end, int channel_begin,
                        int channel_end, float* v) const;
  void transform_first(const Block& block, const float* padded, float* patch, float* v) const;
  void multiply_chunk(const Block& block, int chunk, const float* v, float* products) const;
  void transform_outputs(const Block& block, int chunk, const float* products) const;

  const Kernels* k_ = &kernels();
  int channels_;  // rounded up to a block
  int outputs_;   // rounded up to two blocks
  int height_, width_;
  ConvolutionPlan plan_;
  bool pool_;
  bool relu_;
  const FirstConvolution* first_;
  std::vector<Part> parts_;
  Buffer bias_;
};

}  // namespace graft::engine
