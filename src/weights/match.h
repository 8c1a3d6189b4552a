// Which network the tensors of a file are: for messages, and where a file alone is at hand.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "graft/network.h"
#include "weights/tensor.h"

namespace graft {

/// What a file holds, by the canonical names of a network's layers, as far as it has them; tensors
/// that only another VGG has keep names of their own. Tensors of a head are not among them.
using ShapesFor = std::function<ShapeMap(const Network&)>;

/// The backbones whose convolutions and BatchNorms are exactly those that the file has, or whose
/// first blocks are.
struct Fit {
  std::string backbone;
  std::string last_layer;  ///< the pooling up to which they are there
  bool whole = false;      ///< up to the backbone's last
};
std::vector<Fit> fitting_backbones(const ShapesFor& shapes, int height, int width);

/// Ends a message about differences: what to do, where the shapes alone tell it; else empty.
std::string fit_hint(const ShapesFor& shapes, const Network& full);

}  // namespace graft
