#include "engine/packed_network.h"

#include <algorithm>

#include "base/bfloat16.h"

namespace graft::engine {

PackedNetwork::PackedNetwork(const Network& network, size_t begin, size_t end,
                             const TensorMap& tensors)
    : network_(network),
      begin_(std::max<size_t>(begin, 1)),
      end_(std::max(end, begin_)),
      shapes_(output_shapes(network)) {
  for (const TensorSpec& spec : tensor_specs(network_, begin_, end_))
    tensors_.emplace(spec.name, need_tensor(tensors, spec));  // shares the values
}

FoldedLayer PackedNetwork::folded(size_t layer, bool rounded) const {
  FoldedLayer out = fold_layer(network_, layer, end_, tensors_);
  if (rounded)
    for (float& weight : out.weight) weight = from_bfloat16(to_bfloat16(weight));
  return out;
}

const Convolution& PackedNetwork::convolution(size_t layer, const ConvolutionPlan& plan, bool pool,
                                              const FirstConvolution* first, bool rounded,
                                              Team& team) {
  const std::lock_guard lock(mutex_);
  for (const PackedConvolution& packed : convolutions_)
    if (packed.layer == layer && packed.plan == plan && packed.rounded == rounded)
      return packed.convolution;
  convolutions_.push_back({layer, plan, rounded,
                           Convolution(shapes_[source(layer)], shapes_[layer], plan,
                                       folded(layer, rounded), pool, first, team)});
  return convolutions_.back().convolution;
}

const FirstConvolution& PackedNetwork::first_convolution(size_t layer, bool rounded) {
  const std::lock_guard lock(mutex_);
  const auto at = firsts_.find({layer, rounded});
  if (at != firsts_.end()) return at->second;
  return firsts_.try_emplace({layer, rounded}, shapes_[source(layer)], folded(layer, rounded))
      .first->second;
}

const TileConvolution& PackedNetwork::tile_convolution(size_t layer, bool pool, TileFormat format,
                                                       Team& team) {
  const std::lock_guard lock(mutex_);
  const auto at = tile_convolutions_.find({layer, format});
  if (at != tile_convolutions_.end()) return at->second;
  return tile_convolutions_
      .try_emplace({layer, format}, shapes_[source(layer)], shapes_[layer],
                   fold_layer(network_, layer, end_, tensors_), pool, format, team)
      .first->second;
}

const TileFirstConvolution& PackedNetwork::tile_first_convolution(size_t layer, TileFormat format) {
  const std::lock_guard lock(mutex_);
  const auto at = tile_firsts_.find({layer, format});
  if (at != tile_firsts_.end()) return at->second;
  return tile_firsts_
      .try_emplace({layer, format}, shapes_[source(layer)], shapes_[layer],
                   fold_layer(network_, layer, end_, tensors_), format)
      .first->second;
}

const Dense& PackedNetwork::dense(size_t layer, Team& team) {
  const std::lock_guard lock(mutex_);
  const auto at = denses_.find(layer);
  if (at != denses_.end()) return at->second;
  // Folded weights are a copy of the layer's (411 MB for fc1): made only to be packed.
  return denses_
      .try_emplace(layer, shapes_[source(layer)].channels,
                   fold_layer(network_, layer, end_, tensors_), team)
      .first->second;
}

const Affine& PackedNetwork::affine(size_t layer) {
  const std::lock_guard lock(mutex_);
  const auto at = affines_.find(layer);
  if (at != affines_.end()) return at->second;
  return affines_.try_emplace(layer, batchnorm_affine(network_, layer, tensors_)).first->second;
}

size_t PackedNetwork::packed() const {
  const std::lock_guard lock(mutex_);
  size_t floats = 0;
  for (const PackedConvolution& packed : convolutions_) floats += packed.convolution.packed();
  for (const auto& [layer, convolution] : tile_convolutions_) floats += convolution.packed();
  for (const auto& [layer, dense] : denses_) floats += dense.packed();
  return floats;
}

}  // namespace graft::engine
