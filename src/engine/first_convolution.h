// The 3×3 convolution of few channels (an image's three) that begins a network, computed directly.
#pragma once

#include "engine/buffer.h"
#include "engine/fold.h"
#include "engine/team.h"

namespace graft::engine {

class FirstConvolution {
 public:
  FirstConvolution(const Shape& in, const FoldedLayer& weights);

  [[nodiscard]] int outputs() const { return outputs_; }

  /// Floats of the padded copy of one image's planes.
  [[nodiscard]] size_t padded_image() const;
  void pad(Team::Member& member, const float* in, float* padded, int count) const;

  /// Images [first, first + count) by all members together.
  void run(Team::Member& member, const float* padded, const Maps& out, int first, int count) const;

  /// Outputs [16·panel, 16·panel + 16) of the pixels (y … y + rows, x … x + columns) of one image
  /// into `patch`: [2][rows][stride][8], stride ≥ patch_stride(columns). Pixels outside the map
  /// are zero, as the next layer's padding wants them.
  void compute_patch(const float* padded, int panel, int y, int x, int rows, int columns,
                     int stride, float* patch) const;
  [[nodiscard]] static int patch_stride(int columns) { return columns + kMR; }

 private:
  [[nodiscard]] int padded_columns() const;

  int channels_, height_, width_;
  int outputs_;  // rounded up to 16
  bool relu_;
  Buffer weights_;  // [outputs / 16][channels][3][3][16]
  Buffer bias_;
};

}  // namespace graft::engine
