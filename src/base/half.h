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

/// Of infinity and NaN too.
inline float from_any_half(uint16_t half) {
  const bool finite = (half & 0x7c00U) != 0x7c00U;
  return finite
             ? from_half(half)
             : std::bit_cast<float>((half & 0x8000U) << 16U | 0x7f800000U | (half & 0x3ffU) << 13U);
}

/// x as the sum of two halves: to some 22 bits where |x| is well above 2⁻¹³, and to 2⁻²⁵ below.
/// What is not finite, or too large, becomes infinity or NaN.
inline void split_halves(float x, uint16_t* high, uint16_t* low) {
  const auto half = [](float value) -> uint16_t {
    const auto bits = std::bit_cast<uint32_t>(value);
    const float magnitude = std::bit_cast<float>(bits & 0x7fffffffU);
    if (magnitude < kHalfLimit) return to_half(value);
    return static_cast<uint16_t>((bits >> 16U & 0x8000U) |
                                 (magnitude >= kHalfLimit ? 0x7c00U : 0x7e00U));
  };
  *high = half(x);
  const bool finite = (*high & 0x7c00U) != 0x7c00U;
  *low = finite ? half(x - from_half(*high)) : 0x7e00U;  // ∞ − ∞
}

}  // namespace graft
