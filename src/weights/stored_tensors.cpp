#include "weights/stored_tensors.h"

#include <bit>
#include <cstring>
#include <limits>

#include "base/half.h"

namespace graft {
namespace {

template <typename Stored, typename Convert>
void convert(std::span<const std::byte> bytes, std::span<float> out, Convert&& to_float) {
  for (size_t i = 0; i < out.size(); ++i) {
    Stored value;
    std::memcpy(&value, bytes.data() + i * sizeof(Stored), sizeof(Stored));
    out[i] = to_float(value);
  }
}

}  // namespace

size_t size_of(ElementType type) {
  switch (type) {
    case ElementType::f32:
      return 4;
    case ElementType::f16:
    case ElementType::bf16:
      return 2;
    case ElementType::f64:
      return 8;
    case ElementType::other:
      break;
  }
  return 0;
}

std::string_view to_string(ElementType type) {
  switch (type) {
    case ElementType::f32:
      return "float32";
    case ElementType::f16:
      return "float16";
    case ElementType::bf16:
      return "bfloat16";
    case ElementType::f64:
      return "float64";
    case ElementType::other:
      break;
  }
  return "not floating-point";
}

std::optional<uint64_t> element_count(const std::vector<int64_t>& shape) {
  constexpr int64_t kMost = int64_t{1} << 40;
  int64_t count = 1;
  bool empty = false;
  for (const int64_t extent : shape) {
    if (extent < 0 || extent > kMost) return std::nullopt;
    empty = empty || extent == 0;
    if (extent > 0 && count > kMost / extent) return std::nullopt;
    if (extent > 0) count *= extent;
  }
  return empty ? 0 : static_cast<uint64_t>(count);
}

void to_floats(std::span<const std::byte> bytes, ElementType type, std::span<float> out) {
  switch (type) {
    case ElementType::f32:
      if (!out.empty()) std::memcpy(out.data(), bytes.data(), out.size_bytes());
      return;
    case ElementType::f16:
      convert<uint16_t>(bytes, out, [](uint16_t half) {
        constexpr uint16_t kExponent = 0x7c00;  // all ones: NaN or infinity
        return (half & kExponent) == kExponent ? std::numeric_limits<float>::quiet_NaN()
                                               : from_half(half);
      });
      return;
    case ElementType::bf16:  // the upper half of a float32
      convert<uint16_t>(bytes, out, [](uint16_t upper) {
        return std::bit_cast<float>(static_cast<uint32_t>(upper) << 16U);
      });
      return;
    case ElementType::f64:
      convert<double>(bytes, out, [](double value) { return static_cast<float>(value); });
      return;
    case ElementType::other:
      return;
  }
}

}  // namespace graft
