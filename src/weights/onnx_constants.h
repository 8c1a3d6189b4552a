// Constants of an ONNX graph, and what its nodes make of them: transposed weights, lists of
// extents, numbers for each channel.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "weights/stored_tensors.h"

namespace graft {

/// A list of integers of which some are not known: an extent of the batch.
using OnnxIntegers = std::vector<std::optional<int64_t>>;

/// The tensor with its dimensions in another order: out.shape[i] = shape[order[i]].
StoredTensor permuted(const StoredTensor& tensor, const std::vector<size_t>& order);
/// The same values in another shape of as many elements.
StoredTensor reshaped(const StoredTensor& tensor, const std::vector<int64_t>& shape);
/// A vector of numbers.
StoredTensor stored_vector(std::vector<float> values);

/// The order that an attribute states; nothing: it is none of that many dimensions.
std::optional<std::vector<size_t>> as_order(const std::vector<int64_t>& perm, size_t dimensions);

/// Whether a constant that is combined with values of `dimensions` dimensions, as ONNX broadcasts,
/// is one number, or one for each of `extent` indices of dimension `axis`.
bool varies_along(const std::vector<int64_t>& shape, size_t dimensions, size_t axis,
                  int64_t extent);

/// Indices of a list that ONNX's Slice takes.
std::vector<int64_t> slice_indices(size_t size, int64_t start, int64_t end, int64_t step);

}  // namespace graft
