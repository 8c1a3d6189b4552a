// Tiles of 16-bit numbers, and the kernel that multiplies them: one source for hardware and
// emulation. Tiles 0 to 3 hold sums, 4 and 5 pixels, 6 and 7 weights.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "base/bfloat16.h"
#include "base/half.h"
#include "engine/tile_kernels.h"

namespace graft::engine {

/// Plain C++ that gives AMX's bits (Intel's manual, TDPBF16PS and TDPFP16PS): products of even and
/// of odd channels are summed apart, in order, then added to the tile's sums; subnormal results
/// count as zero, and so do subnormal bfloat16 operands, but not halves. A product of two such
/// numbers is exact in float32, so fused multiply-adds and plain ones give the same.
template <TileFormat kFormat>
class EmulatedTiles {
 public:
  explicit EmulatedTiles(int rows) : rows_(rows) {}

  template <int kTile>
  void load(const void* from, size_t stride) {
    for (int r = 0; r < height(kTile); ++r)
      std::memcpy(tiles_[kTile] + static_cast<ptrdiff_t>(r) * 64,
                  static_cast<const char*>(from) + r * stride, 64);
  }
  template <int kTile>
  void store(void* to, size_t stride) const {
    for (int r = 0; r < height(kTile); ++r)
      std::memcpy(static_cast<char*>(to) + r * stride,
                  tiles_[kTile] + static_cast<ptrdiff_t>(r) * 64, 64);
  }
  template <int kSums, int kPixels, int kWeights>
  void multiply() {
    const auto* pixels = reinterpret_cast<const uint16_t*>(tiles_[kPixels]);
    const auto* weights = reinterpret_cast<const uint16_t*>(tiles_[kWeights]);
    auto* sums = reinterpret_cast<float*>(tiles_[kSums]);
    float w[2][16][16];
    for (int pair = 0; pair < 16; ++pair)
      for (int o = 0; o < 16; ++o)
        for (int odd = 0; odd < 2; ++odd)
          w[odd][pair][o] = operand(weights[pair * 32 + 2 * o + odd]);
    for (int r = 0; r < rows_; ++r) {
      float partial[2][16] = {};
      for (int odd = 0; odd < 2; ++odd)
        for (int pair = 0; pair < 16; ++pair) {
          const float x = operand(pixels[r * 32 + 2 * pair + odd]);
          for (int o = 0; o < 16; ++o)
            partial[odd][o] = flushed(partial[odd][o] + x * w[odd][pair][o]);
        }
      for (int o = 0; o < 16; ++o)
        sums[r * 16 + o] =
            flushed(flushed(sums[r * 16 + o]) + flushed(partial[0][o] + partial[1][o]));
    }
  }
  void settle() {}

 private:
  /// Subnormal numbers as zero, with their sign. Written for compilers to make vectors of.
  static float flushed(float x) {
    return std::abs(x) < std::numeric_limits<float>::min() ? 0.0F * x : x;
  }
  static float operand(uint16_t x) {
    if constexpr (kFormat == TileFormat::halves) return from_any_half(x);
    return flushed(from_bfloat16(x));
  }
  [[nodiscard]] int height(int tile) const { return tile < 6 ? rows_ : 16; }

  int rows_;
  alignas(64) unsigned char tiles_[8][1024];
};

/// All channels of `taps` taps, 9 or 1. Each sum is taken in one order, whatever stands beside it.
template <class Tiles, TileFormat kFormat, int kTaps, bool kTwo>
void multiply_tiles(const TileProduct& p) {
  Tiles t(p.rows);
  t.template load<0>(p.bias, 0);
  t.template load<1>(p.bias + 16, 0);
  if constexpr (kTwo) {
    t.template load<2>(p.bias, 0);
    t.template load<3>(p.bias + 16, 0);
  }
  const uint16_t* weights = p.weights;
  const auto* next = reinterpret_cast<const char*>(p.next_weights);
  const uint16_t* ahead[2] = {p.next_pixels[0], p.next_pixels[1]};
  constexpr int kSide = kTaps == 9 ? 3 : 1;
  for (int block = 0; block < p.blocks; ++block) {
    for (int y = 0; y < kSide; ++y) {
#pragma GCC unroll 3
      for (int x = 0; x < kSide; ++x) {
        const size_t at = block * p.block + y * p.row + x * kTileChannels;
        if (kTaps == 9 && ahead[0] != nullptr && 3 * y + x < 8) {
          // Four taps for each of the two tiles, four pixels with each.
          const auto* pixel = reinterpret_cast<const char*>(ahead[(3 * y + x) / 4]) +
                              ptrdiff_t{(3 * y + x) % 4} * 256;
          for (int i = 0; i < 4; ++i) __builtin_prefetch(pixel + ptrdiff_t{i} * 64, 0, 2);
        }
        for (int i = 0; i < p.lines; ++i, next += 64) __builtin_prefetch(next, 0, 2);
        const auto load_pixels = [&](size_t part) {
          t.template load<4>(p.pixels[0] + at + part, 64);
          if constexpr (kTwo) t.template load<5>(p.pixels[1] + at + part, 64);
        };
        const auto load_weights = [&](int part) {
          t.template load<6>(weights + ptrdiff_t{part} * kTapWeights, 64);
          t.template load<7>(weights + ptrdiff_t{part} * kTapWeights + kTapWeights / 2, 64);
        };
        const auto multiply = [&] {
          t.template multiply<0, 4, 6>();
          t.template multiply<1, 4, 7>();
          if constexpr (kTwo) {
            t.template multiply<2, 5, 6>();
            t.template multiply<3, 5, 7>();
          }
        };
        load_weights(0);
        if constexpr (kFormat == TileFormat::halves) {
          load_pixels(p.low);
          multiply();
        }
        load_pixels(0);
        multiply();
        if constexpr (kFormat == TileFormat::halves) {
          load_weights(1);
          multiply();
        }
        weights += tile_parts(kFormat) * kTapWeights;
      }
    }
    if (ahead[0] != nullptr) {
      ahead[0] += p.block;
      ahead[1] += p.block;
    }
    if (kFormat == TileFormat::halves || block % 2 == 1) t.settle();
  }
  t.template store<0>(p.sums[0], 128);
  t.template store<1>(p.sums[0] + 16, 128);
  if constexpr (kTwo) {
    t.template store<2>(p.sums[1], 128);
    t.template store<3>(p.sums[1] + 16, 128);
  }
}

template <class Tiles, TileFormat kFormat, int kTaps>
void multiply_one_or_two(const TileProduct& p) {
  if (p.pixels[1] != nullptr)
    multiply_tiles<Tiles, kFormat, kTaps, true>(p);
  else
    multiply_tiles<Tiles, kFormat, kTaps, false>(p);
}

}  // namespace graft::engine
