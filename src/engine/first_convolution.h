// The 3×3 convolution of few channels (an image's three) that begins a network, computed directly.
#pragma once

#include "engine/buffer.h"
#include "engine/fold.h"
#include "engine/team.h"

namespace graft::engine {

class FirstConvolution {
 public:
  FirstConvolution(const Shape& in, const FoldedLayer& weights);

  /// Floats of the padded copy of one image's planes.
  [[nodiscard]] size_t padded_image() const;
  void pad(Team::Member& member, const float* in, float* padded, int count) const;

  /// Images [first, first + count) by all members together.
  void run(Team::Member& member, const float* padded, const Maps& out, int first, int count) const;

  /// Outputs [nr·panel, nr·panel + nr) of the pixels (y … y + rows, x … x + columns) of one image
  /// into `patch`: [2][rows][stride][block], stride ≥ patch_stride(columns). Pixels outside the map
  /// are zero, as the next layer's padding wants them.
  void compute_patch(const float* padded, int panel, int y, int x, int rows, int columns,
                     int stride, float* patch) const;
  [[nodiscard]] static int patch_stride(int columns) { return columns + kRowPixels; }

 private:
  [[nodiscard]] int padded_columns() const;

  const Kernels* k_ = &kernels();
  int channels_, height_, width_;
  int blocks_;   // of outputs
  int outputs_;  // rounded up to a panel
  bool relu_;
  Buffer weights_;  // [outputs / nr][channels][3][3][nr]
  Buffer bias_;
};

}  // namespace graft::engine
