#include "weights/onnx_constants.h"

#include <algorithm>
#include <memory>
#include <utility>

namespace graft {

StoredTensor permuted(const StoredTensor& tensor, const std::vector<size_t>& order) {
  std::vector<int64_t> shape(order.size());
  for (size_t d = 0; d < order.size(); ++d) shape[d] = tensor.shape[order[d]];
  return {shape, tensor.type, [in = tensor, order, shape] {
            const Tensor from = in.read();
            // By how much the place in `from` grows with each index of the result.
            std::vector<int64_t> strides(order.size(), 1);
            for (size_t d = 0; d < order.size(); ++d)
              for (size_t i = order[d] + 1; i < in.shape.size(); ++i) strides[d] *= in.shape[i];
            std::vector<float> out(from.values().size());
            std::vector<int64_t> at(order.size(), 0);
            int64_t place = 0;
            for (float& value : out) {
              value = from.values()[static_cast<size_t>(place)];
              for (size_t d = order.size(); d-- > 0;) {
                place += strides[d];
                if (++at[d] < shape[d]) break;
                place -= strides[d] * shape[d];
                at[d] = 0;
              }
            }
            return Tensor(shape, std::move(out));
          }};
}

StoredTensor reshaped(const StoredTensor& tensor, const std::vector<int64_t>& shape) {
  return {shape, tensor.type, [in = tensor, shape] {
            const auto owner = std::make_shared<const Tensor>(in.read());
            return Tensor(shape, owner->values(), owner);
          }};
}

StoredTensor stored_vector(std::vector<float> values) {
  const std::vector<int64_t> shape{static_cast<int64_t>(values.size())};
  return {shape, ElementType::f32, [tensor = Tensor(shape, std::move(values))] { return tensor; }};
}

std::optional<std::vector<size_t>> as_order(const std::vector<int64_t>& perm, size_t dimensions) {
  if (perm.size() != dimensions) return std::nullopt;
  std::vector<bool> seen(dimensions, false);
  std::vector<size_t> out;
  for (const int64_t d : perm) {
    if (d < 0 || static_cast<size_t>(d) >= dimensions || seen[static_cast<size_t>(d)])
      return std::nullopt;
    seen[static_cast<size_t>(d)] = true;
    out.push_back(static_cast<size_t>(d));
  }
  return out;
}

bool varies_along(const std::vector<int64_t>& shape, size_t dimensions, size_t axis,
                  int64_t extent) {
  if (shape.size() > dimensions) return false;
  const size_t first = dimensions - shape.size();
  for (size_t d = 0; d < shape.size(); ++d)
    if (shape[d] != 1 && (first + d != axis || shape[d] != extent)) return false;
  return true;
}

std::vector<int64_t> slice_indices(size_t size, int64_t start, int64_t end, int64_t step) {
  const auto count = static_cast<int64_t>(size);
  std::vector<int64_t> out;
  if (step == 0) return out;
  if (start < 0) start = start < -count ? (step > 0 ? 0 : -1) : start + count;
  if (end < 0) end = end < -count ? -1 : end + count;
  start = std::min(start, step > 0 ? count : count - 1);
  end = std::min(end, count);
  if (step > 0)
    for (int64_t i = start; i < std::max<int64_t>(end, 0); i += std::min(step, count + 1))
      out.push_back(i);
  else
    for (int64_t i = start; i > end; i += std::max(step, -count - 1)) out.push_back(i);
  return out;
}

}  // namespace graft
