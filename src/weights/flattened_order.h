// The order of numbers behind a flatten: Keras goes through rows, columns, channels, Graft and
// PyTorch through channels, rows, columns.
#pragma once

#include <vector>

#include "graft/network.h"
#include "weights/stored_tensors.h"
#include "weights/tensor.h"

namespace graft {

/// Numbers along the last axis that go through a map's rows, columns, channels, in the order of
/// channels, rows, columns.
Tensor channels_first(const Tensor& in, const Shape& map);
/// The same where it is read.
StoredTensor channels_first(StoredTensor tensor, const Shape& map);

/// A tensor of the network whose file goes through rows, columns, channels, in Graft's order: the
/// inputs of the first dense layer behind a flatten, and layers between the two. Others stay.
/// `shapes`: output_shapes(network).
StoredTensor in_graft_order(StoredTensor tensor, const Network& network, const TensorSpec& spec,
                            const std::vector<Shape>& shapes);

}  // namespace graft
