// The engine's inner loops, one set per instruction set, chosen at run time (Google Highway).
//
// Layouts, with the sizes of the set in use: activations are [n][C/block][rows][columns][block]. A
// panel of transformed input is [k/block][mr tiles][block]; a panel of weights [k][nr outputs]; a
// panel of products [mr tiles][nr].
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace graft::engine {

/// What the sizes of any set divide, or are at most; an output panel is always two blocks.
constexpr int kMostBlock = 16;
constexpr int kMostMR = 12;
constexpr int kMostNR = 32;
/// Pixels that convolve_row computes at once.
constexpr int kRowPixels = 6;

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
  const char* target;  ///< "avx2", …: what GRAFT_TARGET calls it
  int64_t highway;     ///< what Highway calls it

  /// Channels kept together in an activation: one vector, of 16 lanes with AVX-512, else 8.
  int block;
  /// Rows (tiles or images) and columns (output channels) of a product panel, MR × NR in the terms
  /// of GEMM: 12 × 32 sums are 24 of AVX-512's 32 registers, 6 × 16 are 12 of AVX2's 16; two of
  /// weights and one of inputs go with them.
  int mr;
  int nr;

  /// c[mr][nr] = (accumulate ? c : 0) + Σ_k a[k/block][mr][block] · b[k][nr]; k = block · blocks;
  /// of the first `rows` of mr only, rounded up to even, and the first `columns` of nr, a block or
  /// two. While it runs it prefetches a share of as many weights as it multiplies from `next` on:
  /// all of them for a `spread` of 1, half for 2, a quarter for 4, an eighth for 8, none for 0.
  void (*multiply)(const float* a, const float* b, float* c, int rows, int columns, size_t blocks,
                   bool accumulate, const float* next, int spread);

  /// Bᵀ d B of the input of one tile, a block of channels: d has rows `row` floats apart and pixels
  /// a block apart; frequency f goes to v + f · stride. Prefetches the tile at `next`.
  void (*transform_input)(TileSize m, const float* d, ptrdiff_t row, float* v, size_t stride,
                          const float* next);

  /// Aᵀ p A + bias, ReLU, 2×2 max-pooling, of one tile of a block of channels: frequency f at p +
  /// f · stride.
  void (*transform_output)(TileSize m, const float* p, size_t stride, const float* bias, bool relu,
                           bool pool, const OutputTile& tile);

  /// One row of 3×3 convolution straight from `channels` planes, into nr outputs (two blocks): `in`
  /// points at the pixel up and left of the first output, planes are `plane` floats and rows `row`
  /// floats apart; weights [channels][3][3][nr]. Reads and writes whole groups of kRowPixels. The
  /// second block is left out where out1 is null.
  void (*convolve_row)(const float* in, int channels, ptrdiff_t plane, ptrdiff_t row,
                       const float* weights, const float* bias, bool relu, int pixels, float* out0,
                       float* out1);
};

/// What the environment variable GRAFT_TARGET says, "" where it says nothing.
std::string forced_target();

/// The kernels of the best instruction set of this processor, or of the one that
/// GRAFT_TARGET names: chosen once, for all that Highway dispatches in this process.
/// Throws a usage error where it names one that is not there.
const Kernels& kernels();

/// Calls `body` with the kernels of each instruction set that was compiled and that this processor
/// can run, all of Highway's dispatch in this process being theirs meanwhile; `skipped` gets the
/// names of those that it cannot run.
void for_each_target(const std::function<void(const Kernels&)>& body,
                     std::vector<std::string>* skipped = nullptr);

/// The kernels of every instruction set that was compiled and that this processor can run, and the
/// names of those that it cannot. For tests.
struct KernelTargets {
  std::vector<const Kernels*> usable;
  std::vector<std::string> skipped;
};
KernelTargets kernel_targets();

}  // namespace graft::engine
