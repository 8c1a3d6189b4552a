// IEEE 754 half precision (binary16) in 16-bit integers.
#pragma once

#include <bit>
#include <cstdint>

namespace graft {

/// The largest finite half is 65504; values from 65520 on would round to infinity.
inline constexpr float kHalfLimit = 65520.0F;

/// Rounds to the nearest half, ties to even. |x| must be below kHalfLimit.
inline uint16_t to_half(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  const uint32_t sign = bits >> 16U & 0x8000U;
  const uint32_t magnitude = bits & 0x7fffffffU;
  if (magnitude < 0x38800000U) {
    // Below 2⁻¹⁴ halves are evenly spaced; adding ½ leaves their number in the last bits, rounded
    // by the addition itself.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5F;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000U));
  }
  // The exponent's bias changes from 127 to 15; half of the last place, less one for even ties.
  const uint32_t rounded = magnitude - (112U << 23U) + 0xfffU + (magnitude >> 13U & 1U);
  return static_cast<uint16_t>(sign | rounded >> 13U);
}

/// Exact, for finite halves.
inline float from_half(uint16_t half) {
  const uint32_t magnitude = (half & 0x7fffU) << 13U;
  const float value = std::bit_cast<float>(magnitude) * 0x1p112F;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(value) | (half & 0x8000U) << 16U);
}

}  // namespace graft
