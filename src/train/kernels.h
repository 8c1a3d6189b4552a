// The inner loops of training on a processor, one set per instruction set, chosen at run time
// (Google Highway). No LibTorch in here.
#pragma once

#include <cstddef>

namespace graft::training {

/// Output pixels of a Winograd tile, each way; its input has two more.
constexpr int kTiles[] = {3, 4, 6};
/// Of a tile, row by row.
constexpr int frequencies(int tile) { return (tile + 2) * (tile + 2); }

/// The constants of one Adam step, in the precision of the arrays.
struct AdamStep {
  float beta1, beta2;
  float rate;       ///< learning rate over the first moment's bias
  float root_bias;  ///< 1 / √(second moment's bias)
  float epsilon;
  float decay;  ///< times the parameter is added to the gradient
  float keep;   ///< what is left of the parameter after decoupled decay
};

struct SgdStep {
  float rate, momentum;
  float decay;  ///< times the parameter is added to the gradient
};

/// The transforms of m×m tiles. Pixels are pointers to the channels of a pixel, rows of the tile
/// one after the other; a null pointer is a pixel of zeros to read, and one to leave alone in what
/// is written. Frequency f of a tile is at f · frequency, `channels` floats.
struct TileTransforms {
  /// v = Bᵀ d B of (m+2)×(m+2) pixels d.
  void (*input)(const float* const* pixels, size_t channels, float* v, size_t frequency);
  /// Aᵀ p A (+ bias, where it is not null) into m×m pixels.
  void (*output)(const float* p, size_t frequency, size_t channels, const float* bias,
                 float* const* pixels);
  /// v = A g Aᵀ of m×m pixels g: the adjoint of `output`, for the gradient of the weights.
  void (*gradient)(const float* const* pixels, size_t channels, float* v, size_t frequency);
};

/// Where gradients lie: in runs of `width` elements, `apart` floats from one to the next; both the
/// same for an array without gaps.
struct Runs {
  size_t width;
  size_t apart;
};

struct Kernels {
  void (*adam)(const AdamStep& step, size_t count, float* parameter, const float* gradient,
               Runs runs, float* first, float* second);
  void (*sgd)(const SgdStep& step, size_t count, float* parameter, const float* gradient, Runs runs,
              float* momentum);

  TileTransforms tile3, tile4, tile6;

  /// `size`: one of kTiles.
  [[nodiscard]] const TileTransforms& tile(int size) const {
    return size == 3 ? tile3 : size == 4 ? tile4 : tile6;
  }
};

/// The kernels of the best instruction set of this processor.
const Kernels& kernels();

}  // namespace graft::training
