#include "engine/first_convolution.h"

#include <algorithm>
#include <cstring>

namespace graft::engine {

FirstConvolution::FirstConvolution(const Shape& in, const FoldedLayer& weights)
    : channels_(static_cast<int>(in.channels)),
      height_(static_cast<int>(in.height)),
      width_(static_cast<int>(in.width)),
      outputs_(static_cast<int>(weights.bias.size() + kNR - 1) / kNR * kNR),
      relu_(weights.relu) {
  weights_ = Buffer(static_cast<size_t>(outputs_) * channels_ * 9);
  bias_ = Buffer(static_cast<size_t>(outputs_));
  std::copy(weights.bias.begin(), weights.bias.end(), bias_.data());
  const int taps = channels_ * 9;
  for (int k = 0; k < static_cast<int>(weights.bias.size()); ++k)
    for (int t = 0; t < taps; ++t)
      weights_.data()[(static_cast<size_t>(k / kNR) * taps + t) * kNR + k % kNR] =
          weights.weight[static_cast<size_t>(k) * taps + t];
}

// A border of one pixel, and as far as a group of six that starts at the last pixel reads.
int FirstConvolution::padded_columns() const { return width_ + kMR + 1; }

size_t FirstConvolution::padded_image() const {
  return static_cast<size_t>(channels_) * (height_ + 2) * padded_columns();
}

void FirstConvolution::pad(Team::Member& member, const float* in, float* padded, int count) const {
  const int columns = padded_columns();
  for (int plane = member.take(); plane < count * channels_; plane = member.take()) {
    const float* from = in + static_cast<size_t>(plane) * height_ * width_;
    float* to = padded + static_cast<size_t>(plane) * (height_ + 2) * columns + columns + 1;
    for (int y = 0; y < height_; ++y, from += width_, to += columns)
      std::memcpy(to, from, sizeof(float) * width_);
  }
}

void FirstConvolution::run(Team::Member& member, const float* padded, const Maps& out, int first,
                           int count) const {
  const Kernels& k = kernels();
  const int columns = padded_columns();
  const ptrdiff_t plane = static_cast<ptrdiff_t>(height_ + 2) * columns;
  const int whole = width_ / kMR * kMR;
  alignas(64) float tail[2][kMR * kBlock];
  for (int unit = member.take(); unit < count * height_; unit = member.take()) {
    const int n = first + unit / height_;
    const int y = unit % height_;
    const float* in =
        padded + static_cast<size_t>(n) * padded_image() + static_cast<size_t>(y) * columns;
    for (int panel = 0; panel < outputs_ / kNR; ++panel) {
      const float* w = weights_.data() + static_cast<size_t>(panel) * channels_ * 9 * kNR;
      const float* bias = bias_.data() + panel * kNR;
      const bool both = 2 * panel + 1 < out.blocks();
      // The border of the output stays zero: the last, partial group goes through a buffer. So does
      // a second half that does not exist.
      for (int x = 0; x < width_; x += kMR) {
        const bool direct = both && x < whole;
        const int run = direct ? whole - x : kMR;
        float* out0 = out.at(n, 2 * panel, y + 1, x + 1);
        float* out1 = both ? out.at(n, 2 * panel + 1, y + 1, x + 1) : tail[1];
        k.convolve_row(in + x, channels_, plane, columns, w, bias, relu_, run,
                       direct ? out0 : tail[0], direct ? out1 : tail[1]);
        if (direct) {
          x += run - kMR;
          continue;
        }
        const size_t bytes = sizeof(float) * kBlock * std::min(kMR, width_ - x);
        std::memcpy(out0, tail[0], bytes);
        if (both) std::memcpy(out1, tail[1], bytes);
      }
    }
  }
}

void FirstConvolution::compute_patch(const float* padded, int panel, int y, int x, int rows,
                                     int columns, int stride, float* patch) const {
  const ptrdiff_t row = padded_columns();
  const ptrdiff_t plane = (height_ + 2) * row;
  const float* w = weights_.data() + static_cast<size_t>(panel) * channels_ * 9 * kNR;
  const ptrdiff_t half = static_cast<ptrdiff_t>(rows) * stride * kBlock;
  const int begin = std::clamp(-x, 0, columns);            // pixels left of the map …
  const int end = std::clamp(width_ - x, begin, columns);  // … and within it
  const auto clear = [&](float* to, int pixels) {
    std::fill_n(to, pixels * kBlock, 0.0F);
    std::fill_n(to + half, pixels * kBlock, 0.0F);
  };
  for (int r = 0; r < rows; ++r) {
    float* to = patch + static_cast<ptrdiff_t>(r) * stride * kBlock;
    if (y + r < 0 || y + r >= height_) {
      clear(to, columns);
      continue;
    }
    float* inside = to + static_cast<ptrdiff_t>(begin) * kBlock;
    kernels().convolve_row(padded + (y + r) * row + x + begin, channels_, plane, row, w,
                           bias_.data() + panel * kNR, relu_, end - begin, inside, inside + half);
    clear(to, begin);
    clear(to + static_cast<ptrdiff_t>(end) * kBlock, columns - end);
  }
}

}  // namespace graft::engine
