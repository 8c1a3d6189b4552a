// The engine's inner loops, one set per instruction set, chosen at run time (Google Highway).
//
// Layouts: activations are nChw8c, [n][C/8][rows][columns][8]. A panel of transformed input is
// [k/8][6 tiles][8]; a panel of weights [k][16 outputs]; a panel of products [6 tiles][16].
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace graft::engine {

constexpr int kBlock = 8;  ///< channels kept together in an activation: one AVX2 vector

// The product kernel's register block, MR × NR in the terms of GEMM: 6 × 16 sums are 12 of AVX2's
// 16 registers; two of weights and one of inputs go with them.
constexpr int kMR = 6;   ///< MR: rows of a product panel, tiles or images
constexpr int kNR = 16;  ///< NR: columns of a product panel, output channels

/// Output pixels of a Winograd tile: 2, 4 or 6 each way. Its input has two more each way, and it
/// has as many frequencies as input pixels, row by row.
struct TileSize {
  int rows;
  int columns;
  [[nodiscard]] constexpr int frequencies() const { return (rows + 2) * (columns + 2); }
};

/// One tile's place for the output transform.
struct OutputTile {
  float* target;   ///< first pixel to write, channel block included
  ptrdiff_t row;   ///< floats between rows of the target
  int valid_rows;  ///< convolution rows and columns that exist (edge tiles have fewer)
  int valid_columns;
};

struct Kernels {
  const char* target;  ///< "AVX2", …

  /// c[6][16] = (accumulate ? c : 0) + Σ_k a[k/8][6][8] · b[k][16]; k = 8·k8; of the first `rows`
  /// of the six only (2, 4 or 6). While it runs it prefetches `lines` cache lines for each 8 of k
  /// from `next` (0, 1, 2, 4 or 8).
  void (*multiply)(const float* a, const float* b, float* c, int rows, size_t k8, bool accumulate,
                   const float* next, int lines);

  /// Bᵀ d B of the input of one tile, 8 channels: d has rows `row` floats apart and pixels 8 apart;
  /// frequency f goes to v + f · stride. Prefetches the tile at `next`.
  void (*transform_input)(TileSize m, const float* d, ptrdiff_t row, float* v, size_t stride,
                          const float* next);

  /// Aᵀ p A + bias, ReLU, 2×2 max-pooling, of one tile of 8 channels: frequency f at p + f ·
  /// stride.
  void (*transform_output)(TileSize m, const float* p, size_t stride, const float* bias, bool relu,
                           bool pool, const OutputTile& tile);

  /// One row of 3×3 convolution straight from `channels` planes, into 16 outputs (two blocks of 8):
  /// `in` points at the pixel up and left of the first output, planes are `plane` floats and rows
  /// `row` floats apart; weights [channels][3][3][16]. Reads and writes whole groups of 6 pixels.
  void (*convolve_row)(const float* in, int channels, ptrdiff_t plane, ptrdiff_t row,
                       const float* weights, const float* bias, bool relu, int pixels, float* out0,
                       float* out1);
};

/// The kernels of the best instruction set of this processor.
const Kernels& kernels();

/// The kernels of every instruction set that was compiled and that this processor can run, and the
/// names of those that it cannot. For tests.
struct KernelTargets {
  std::vector<const Kernels*> usable;
  std::vector<std::string> skipped;
};
KernelTargets kernel_targets();

}  // namespace graft::engine
