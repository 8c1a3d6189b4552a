// The layers of a network with their weights as the kernels read them: what engines share.
#pragma once

#include <cstddef>
#include <deque>
#include <map>
#include <mutex>
#include <utility>

#include "engine/convolution.h"
#include "engine/convolution_plan.h"
#include "engine/dense.h"
#include "engine/first_convolution.h"
#include "engine/fold.h"
#include "engine/team.h"
#include "engine/tile_convolution.h"
#include "engine/tile_first_convolution.h"
#include "graft/network.h"
#include "weights/tensor.h"

namespace graft::engine {

/// Layers [begin, end) of a network. Weights are folded, transformed and packed when an engine
/// first asks for them, once for each plan, and never change or move after that. Thread-safe: one
/// thread packs, the others wait for it.
class PackedNetwork {
 public:
  /// Throws Error(input) where a tensor is missing or of another shape than the network needs.
  PackedNetwork(const Network& network, size_t begin, size_t end, const TensorMap& tensors);

  [[nodiscard]] const Network& network() const { return network_; }
  [[nodiscard]] size_t begin() const { return begin_; }
  [[nodiscard]] size_t end() const { return end_; }
  [[nodiscard]] const std::vector<Shape>& shapes() const { return shapes_; }
  [[nodiscard]] const TensorMap& tensors() const { return tensors_; }

  /// `pool`: with the pooling behind it. `first`: the convolution before it, computed in its input
  /// stage; null for none. Both follow from the layer and the plan, but for `rounded`: of weights
  /// that are rounded to bfloat16, where no convolution is computed inside another.
  const Convolution& convolution(size_t layer, const ConvolutionPlan& plan, bool pool,
                                 const FirstConvolution* first, bool rounded, Team& team);
  const FirstConvolution& first_convolution(size_t layer, bool rounded);
  const TileConvolution& tile_convolution(size_t layer, bool pool, TileFormat format, Team& team);
  const TileFirstConvolution& tile_first_convolution(size_t layer, TileFormat format);
  const Dense& dense(size_t layer, Team& team);
  const Affine& affine(size_t layer);

  /// Floats of weights packed so far.
  [[nodiscard]] size_t packed() const;

 private:
  [[nodiscard]] FoldedLayer folded(size_t layer, bool rounded) const;
  [[nodiscard]] size_t source(size_t layer) const { return network_.layers[layer].source(); }

  struct PackedConvolution {
    size_t layer;
    ConvolutionPlan plan;
    bool rounded;
    Convolution convolution;
  };

  Network network_;
  size_t begin_;
  size_t end_;
  std::vector<Shape> shapes_;
  TensorMap tensors_;
  mutable std::mutex mutex_;  // guards what follows, but not what stands in it
  std::deque<PackedConvolution> convolutions_;
  std::map<std::pair<size_t, bool>, FirstConvolution> firsts_;
  std::map<std::pair<size_t, TileFormat>, TileConvolution> tile_convolutions_;
  std::map<std::pair<size_t, TileFormat>, TileFirstConvolution> tile_firsts_;
  std::map<size_t, Dense> denses_;
  std::map<size_t, Affine> affines_;
};

}  // namespace graft::engine
