#include "weights/torch_storages.h"

namespace graft {
namespace {

bool is_contiguous(const TorchTensor& tensor) {
  int64_t expected = 1;
  for (size_t d = tensor.shape.size(); d-- > 0;) {
    if (tensor.shape[d] != 1 && tensor.strides[d] != expected) return false;
    expected *= tensor.shape[d];
  }
  return true;
}

/// Row-major values of a tensor with any strides (channels_last, transposed).
std::vector<float> gather(const TorchTensor& tensor, std::span<const std::byte> storage) {
  const uint64_t count = element_count(tensor.shape).value();
  std::vector<float> out(count);
  std::vector<int64_t> at(tensor.shape.size(), 0);
  uint64_t from = tensor.offset;
  for (uint64_t i = 0; i < count; ++i) {
    to_floats(storage.subspan(from * tensor.storage.element_bytes), tensor.storage.type,
              std::span(out).subspan(i, 1));
    for (size_t d = at.size(); d-- > 0;) {
      from += static_cast<uint64_t>(tensor.strides[d]);
      if (++at[d] < tensor.shape[d]) break;
      from -= static_cast<uint64_t>(tensor.strides[d] * tensor.shape[d]);
      at[d] = 0;
    }
  }
  return out;
}

}  // namespace

Tensor TorchTensorReader::read(const TorchTensor& tensor) {
  const TorchStorage& storage = tensor.storage;
  const uint64_t count = element_count(tensor.shape).value();
  if (count == 0) return {tensor.shape, std::vector<float>{}};
  const bool contiguous = is_contiguous(tensor);
  if (contiguous && storage.type == ElementType::f32 && count == storage.elements) {
    std::vector<float> values(count);
    storages_->read(storage.key, std::as_writable_bytes(std::span(values)));
    return {tensor.shape, std::move(values)};
  }
  if (key_ != storage.key) {
    last_.clear();
    last_.resize(storage.elements * storage.element_bytes);
    storages_->read(storage.key, last_);
    key_ = storage.key;
  }
  if (!contiguous) return {tensor.shape, gather(tensor, last_)};
  std::vector<float> values(count);
  to_floats(std::span(last_).subspan(tensor.offset * storage.element_bytes), storage.type, values);
  return {tensor.shape, std::move(values)};
}

}  // namespace graft
