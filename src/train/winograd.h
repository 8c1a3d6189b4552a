// The inner loops of convolutions that train, by Winograd's F(m×m′, 3×3), one set per instruction
// set (Google Highway). No LibTorch in here.
//
// Maps are channels-last: a pixel is its channels. Sizes are those of the engine's product kernel
// (engine/kernels.h): `block`, `mr`, `nr`.
#pragma once

#include <cstddef>

namespace graft::training {

/// Output pixels of a tile, each way: 3, 4 or 6. Its input has two more each way, and it has as
/// many frequencies as input pixels, row by row.
struct Tile {
  int rows;
  int columns;
  [[nodiscard]] constexpr int frequencies() const { return (rows + 2) * (columns + 2); }
};

/// Where a transform puts what it makes of some channels: frequency f of channel c at
/// f · frequency + c / width · step + c % width. `width` is a block or two.
struct Place {
  size_t frequency;
  size_t width;
  size_t step;
};

/// Pixels are pointers to a pixel's channels, rows of the tile one after the other; a null pointer
/// is a pixel of zeros to read, and one to leave alone in what is written.
struct WinogradKernels {
  /// Bᵀ d B of (rows + 2)×(columns + 2) pixels d.
  void (*input)(Tile tile, const float* const* pixels, size_t channels, float* v, Place place);
  /// A g Aᵀ of rows×columns pixels g: the adjoint of `output`, for the gradient of the weights.
  void (*gradient)(Tile tile, const float* const* pixels, size_t channels, float* v, Place place);
  /// Aᵀ p A (+ bias, where it is not null) into rows×columns pixels; frequency f at p + f ·
  /// frequency.
  void (*output)(Tile tile, const float* p, size_t frequency, size_t channels, const float* bias,
                 float* const* pixels);
  /// G g Gᵀ of `channels` kernels side by side: tap t of the nine at taps + t · tap, frequency f to
  /// u + f · frequency.
  void (*weights)(Tile tile, const float* taps, size_t tap, size_t channels, float* u,
                  size_t frequency);
  /// taps += Gᵀ u G: the adjoint of `weights`.
  void (*taps)(Tile tile, const float* u, size_t frequency, size_t channels, float* taps,
               size_t tap);
  /// c[outer_rows][nr] = Σ_t aᵀ b over mr · groups tiles: a as `multiply` of the engine takes it,
  /// `group` floats from one group of mr tiles to the next; b[t][nr].
  void (*outer)(const float* a, size_t group, size_t groups, const float* b, float* c);
  /// Channels that `outer` takes: half a block.
  int outer_rows;
};

/// The kernels of the best instruction set of this processor, or of GRAFT_TARGET's.
const WinogradKernels& winograd_kernels();

}  // namespace graft::training
