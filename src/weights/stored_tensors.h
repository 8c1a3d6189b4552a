// Tensors as another program's file holds them: named, of several types, read when asked for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "weights/tensor.h"

namespace graft {

enum class ElementType : uint8_t { f32, f16, bf16, f64, other };

/// Bytes of an element; of `other` 0.
size_t size_of(ElementType type);
std::string_view to_string(ElementType type);  ///< "float32", …

struct StoredTensor {
  std::vector<int64_t> shape;
  ElementType type = ElementType::f32;
  /// Its values as float32, row-major. Throws Error(input) that names the file, also for `other`.
  std::function<Tensor()> read;
};

using StoredTensors = std::map<std::string, StoredTensor>;

/// The number of elements, where it is below 2^40; each extent is 0 or more.
std::optional<uint64_t> element_count(const std::vector<int64_t>& shape);

/// Elements that lie one behind the other, in any alignment, as float32; NaN and infinity stay
/// such. `bytes` has out.size() of them, of a type that is not `other`.
void to_floats(std::span<const std::byte> bytes, ElementType type, std::span<float> out);

}  // namespace graft
