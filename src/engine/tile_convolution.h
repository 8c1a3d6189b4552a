// 3×3 convolution + bias + ReLU (+ 2×2 max-pooling) on tiles of 16-bit numbers, summed in float32.
//
// Direct: a tile of pixels times 32 outputs, all taps and channels in one go, the sums in registers
// of their own. Winograd's transforms would lose more digits than bfloat16 has.
#pragma once

#include <string>
#include <vector>

#include "engine/fold.h"
#include "engine/tile_maps.h"

namespace graft::engine {

/// Of the weights of a layer, for halves.
struct TileBounds {
  float scale = 1;  ///< of the packed weights, a power of two
  float sums = 0;   ///< of the weights of an output, without their signs, the largest
  float bias = 0;   ///< the largest

  TileBounds(const FoldedLayer& weights, TileFormat format);
  /// That outputs cannot exceed where inputs do not exceed `most`.
  [[nodiscard]] float bound(float most) const;
};

/// Puts a weight where products of `tap` want it, both parts.
void pack_weight(float weight, float scale, TileFormat format, int output, int channel,
                 uint16_t* tap);

/// What an image's sums are multiplied by: 1 for bfloat16.
struct ImageFactors {
  float sums = 1;      ///< sums of scaled products over activations
  float rounding = 1;  ///< stored results over sums

  ImageFactors(float weights, const ImageScale* in, const TileMaps& out, int n) {
    if (in == nullptr) return;
    sums = weights * in[n].scale;
    rounding = out.scales[n].scale / sums;
  }
};

/// A convolution with its packed weights. Results of an image do not depend on the other images or
/// on the team.
class TileConvolution {
 public:
  TileConvolution(const Shape& in, const Shape& out, const FoldedLayer& weights, bool pool,
                  TileFormat format, Team& team);

  /// "rows of 16", "runs of 16": which pixels make a tile.
  [[nodiscard]] std::string description() const;
  /// Floats that the packed weights take the room of.
  [[nodiscard]] size_t packed() const { return weights_.size(); }
  [[nodiscard]] static size_t packed(int64_t channels, int64_t outputs, TileFormat format);
  /// Floats of scratch memory for each member of the team.
  [[nodiscard]] size_t private_scratch() const;

  /// Of halves: chooses the outputs' scales, before run(); by one member, ends inside a region.
  void choose_scales(Team::Member& member, const TileMaps& in, const TileMaps& out, int first,
                     int count) const;
  /// Images [first, first + count), by all members of a team together; ends inside a region.
  void run(Team::Member& member, const TileKernels& k, const TileMaps& in, const TileMaps& out,
           int first, int count, float* scratch) const;

 private:
  /// Neighbouring pixels, at most 16. Numbers count pixels in a plane.
  struct Tile {
    int in;      ///< the first one's upper left tap
    int out;     ///< the first one in the output; with pooling of runs, in the strip's sums
    int pixels;  ///< that exist
    int edge;    ///< the first of them that is the column of zeros; −1: none
  };
  /// Rows [top, bottom) of one image.
  struct Strip {
    int top, bottom;
    std::vector<Tile> tiles;
  };
  struct Unit;

  void cut_into_rows(Strip& strip, const TileMaps& in, const TileMaps& out) const;
  void cut_into_runs(Strip& strip, const TileMaps& in) const;
  void pack(const FoldedLayer& weights, Team& team);
  [[nodiscard]] int panels() const { return (outputs_ + kTileChannels - 1) / kTileChannels; }
  [[nodiscard]] int blocks() const { return (channels_ + kTileChannels - 1) / kTileChannels; }
  [[nodiscard]] size_t panel_weights() const {
    return static_cast<size_t>(blocks()) * 9 * tile_parts(format_) * kTapWeights;
  }
  void run_unit(const TileKernels& k, const Unit& unit, const TileMaps& in, const TileMaps& out,
                float* scratch) const;
  void finish_tiles(const TileKernels& k, const Tile* tiles, int count, const float* sums,
                    uint16_t* out, int stride, const TileRounding& how) const;
  void finish_strip(const TileKernels& k, const Strip& strip, const TileMaps& in,
                    const TileMaps& out, const float* sums, uint16_t* plane,
                    const TileRounding& how) const;

  int channels_;
  int outputs_;
  bool pool_;
  bool relu_;
  TileFormat format_;
  TileBounds bounds_;
  int rows_;   ///< pixels in a tile
  bool runs_;  ///< tiles are runs of pixels across rows, else parts of rows
  size_t image_bytes_;
  std::vector<Strip> strips_;
  Buffer weights_;  ///< [panels][blocks][9] of kTapWeights
  Buffer bias_;
};

}  // namespace graft::engine
