#include "engine/pooling.h"

#include <algorithm>
#include <cmath>

namespace graft::engine {

void global_pool(LayerKind kind, const float* maps, int64_t channels, int64_t pixels, float* out) {
  for (int64_t c = 0; c < channels; ++c) {
    const float* map = maps + c * pixels;
    double sum = 0;
    float most = map[0];
    for (int64_t i = 0; i < pixels; ++i) {
      sum += map[i];
      most = std::max(most, map[i]);
    }
    const double mean = sum / static_cast<double>(pixels);
    if (kind == LayerKind::gmp) {
      out[c] = most;
      continue;
    }
    out[c] = static_cast<float>(mean);
    if (kind != LayerKind::stats) continue;
    double squares = 0;
    for (int64_t i = 0; i < pixels; ++i) squares += (map[i] - mean) * (map[i] - mean);
    out[channels + c] = most;
    out[2 * channels + c] = static_cast<float>(std::sqrt(squares / static_cast<double>(pixels)));
  }
}

void apply_affine(const Affine& affine, bool relu, float* maps, int64_t pixels) {
  for (size_t c = 0; c < affine.scale.size(); ++c) {
    float* map = maps + static_cast<int64_t>(c) * pixels;
    for (int64_t i = 0; i < pixels; ++i) {
      const float value = map[i] * affine.scale[c] + affine.shift[c];
      map[i] = relu ? std::max(value, 0.0F) : value;
    }
  }
}

}  // namespace graft::engine
