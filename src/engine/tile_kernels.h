// Inner loops for products of 16-bit numbers in tiles: AMX, AVX512_BF16, and an emulation of AMX
// that gives its bits on any processor.
//
// Numbers are bfloat16, or, where float32 is wanted, halves in pairs: x = high + low, each rounded
// to 11 bits. Of the product of two such pairs the three larger parts are taken, so that errors are
// those of float32. Halves have few exponents, so weights and activations are multiplied by powers
// of two first.
//
// A tile is 16 rows of 64 bytes. Of pixels, a row is one pixel's block of 32 channels; of weights,
// a row is two channels (a pair) of 16 outputs, side by side; of sums, a row is one pixel's 16
// outputs in float32.
#pragma once

#include <cstddef>
#include <cstdint>

#include "graft/precision.h"

namespace graft::engine {

/// Channels kept together in an activation of 16-bit numbers, and outputs computed together.
constexpr int kTileChannels = 32;
/// Pixels in a tile, at most.
constexpr int kTilePixels = 16;
/// Elements of the weights of one tap: [2 tiles][16 pairs][16 outputs][2].
constexpr int kTapWeights = kTileChannels * kTileChannels;
/// What 16-bit numbers stand for.
enum class TileFormat { bf16, halves };
/// Parts of a number that are kept apart.
constexpr int tile_parts(TileFormat format) { return format == TileFormat::halves ? 2 : 1; }

/// Floats of the sums of one tile of pixels: [16 pixels][32 outputs].
constexpr int kTileSums = kTilePixels * kTileChannels;

/// One or two tiles of pixels times all weights of 32 outputs.
struct TileProduct {
  /// Upper left tap of each tile's first pixel; the second is null where there is one tile. Pixels
  /// are 32 elements, one after the other.
  const uint16_t* pixels[2];
  size_t low;               ///< elements from the pixels to their low halves
  size_t block;             ///< elements between blocks of 32 channels
  size_t row;               ///< elements between rows of taps
  int rows;                 ///< pixels in each tile, at most 16, as enter() was told
  const uint16_t* weights;  ///< [blocks][taps][parts] of kTapWeights
  int blocks;
  const float* bias;  ///< of 32 outputs
  float* sums[2];     ///< kTileSums each: rows × 32 are written

  /// Weights that are wanted next: so many cache lines are prefetched with each tap.
  const uint16_t* next_weights;
  int lines;
  /// Pixels that the next two tiles will read first, of the first block; null for none.
  const uint16_t* next_pixels[2];
};

/// How sums become activations.
struct TileRounding {
  bool relu;
  // Of halves alone:
  float scale;  ///< what sums are multiplied by, a power of two
  size_t low;   ///< elements from a result to its low half
  float* most;  ///< raised to the largest absolute value among the sums, ReLU applied
};

struct TileKernels {
  const char* name;      ///< "amx", "amx-fp16", "avx512_bf16", "emulated-amx", …
  const char* numerics;  ///< what decides results to the bit
  TileFormat format;
  bool fast;  ///< faster than float32 is on the same processor

  /// Before and after a thread's products of tiles with so many rows.
  void (*enter)(int rows);
  void (*leave)();

  /// A 3×3 convolution's products: sums = bias + Σ over blocks, taps and channels.
  void (*convolve)(const TileProduct& product);
  /// The same of a single tap.
  void (*multiply)(const TileProduct& product);

  /// Sums of `pixels` pixels of 32 outputs, ReLU, rounded.
  void (*round)(const float* sums, int pixels, const TileRounding& how, uint16_t* to);
  /// The largest of 2 × 2, of two rows of sums, for `pixels` pixels of output, ReLU, rounded.
  void (*pool)(const float* upper, const float* lower, int pixels, const TileRounding& how,
               uint16_t* to);
};

/// Those that this process uses, by the processor and GRAFT_TARGET; null for none. For float32 only
/// where the processor has AMX-FP16.
const TileKernels* tile_kernels(Precision precision);

/// A name for GRAFT_TARGET: numbers are rounded to bfloat16 where tiles would read them, and
/// multiplied by the kernels of float32. To measure what bf16 does to accuracy, at float32's speed,
/// on any processor: an emulation of tiles takes many times as long.
inline constexpr const char* kRoundedTarget = "rounded-bf16";
/// Whether GRAFT_TARGET says so.
bool rounds_operands();

/// Hardware's, if this processor and its system have it, else null; the emulation is there always.
/// For tests.
const TileKernels* amx_kernels();
const TileKernels* amx_fp16_kernels();
const TileKernels* avx512_bf16_kernels();
const TileKernels* emulated_amx_kernels();
const TileKernels* emulated_amx_fp16_kernels();

}  // namespace graft::engine
