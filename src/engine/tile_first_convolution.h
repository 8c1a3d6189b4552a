// The 3×3 convolution of an image's three channels that begins a network, on tiles of 16-bit
// numbers.
#pragma once

#include "engine/fold.h"
#include "engine/tile_convolution.h"
#include "engine/tile_maps.h"

namespace graft::engine {

/// A pixel's 27 numbers, three rows of three pixels of three channels, are one row of a tile: its
/// 32 channels, of which the last are zero.
class TileFirstConvolution {
 public:
  /// Channels of the input at most.
  static constexpr int kMostChannels = 3;

  TileFirstConvolution(const Shape& in, const Shape& out, const FoldedLayer& weights,
                       TileFormat format);

  /// Floats of scratch memory for each member of the team.
  [[nodiscard]] size_t private_scratch() const;
  /// Floats that hold one image as run() reads it, rounded, channels side by side, with a border.
  [[nodiscard]] size_t padded_image() const;
  /// `scales`: of the images, for halves; else null.
  void pad(Team::Member& member, const float* in, const ImageScale* scales, float* padded,
           int count) const;

  /// As TileConvolution::choose_scales.
  void choose_scales(Team::Member& member, const ImageScale* in, const TileMaps& out, int first,
                     int count) const;
  /// Images [first, first + count), by all members of a team together; ends inside a region.
  void run(Team::Member& member, const TileKernels& k, const float* padded,
           const ImageScale* scales, const TileMaps& out, int first, int count,
           float* scratch) const;

 private:
  [[nodiscard]] size_t padded_row() const;  ///< in elements, as those below
  [[nodiscard]] size_t low() const;         ///< from a number to its low half
  [[nodiscard]] int tiles() const;          ///< of a row, pairs

  int channels_, height_, width_;
  int panels_;
  bool relu_;
  TileFormat format_;
  TileBounds bounds_;
  Buffer weights_;  ///< [panels][parts] of kTapWeights
  Buffer bias_;
};

}  // namespace graft::engine
