// bfloat16, the upper half of a float32, in 16-bit integers, as processors with AVX512_BF16 and AMX
// convert it.
#pragma once

#include <bit>
#include <cstdint>

namespace graft {

/// Rounds to the nearest, ties to even; subnormal numbers become zero, NaN stays NaN.
inline uint16_t to_bfloat16(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  const uint32_t magnitude = bits & 0x7fffffffU;
  if (magnitude < 0x00800000U) return static_cast<uint16_t>(bits >> 16U & 0x8000U);
  if (magnitude > 0x7f800000U) return static_cast<uint16_t>(bits >> 16U | 0x40U);
  return static_cast<uint16_t>((bits + 0x7fffU + (bits >> 16U & 1U)) >> 16U);
}

inline float from_bfloat16(uint16_t x) { return std::bit_cast<float>(uint32_t{x} << 16U); }

}  // namespace graft
