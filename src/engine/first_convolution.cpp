#include "engine/first_convolution.h"

#include <algorithm>
#include <cstring>

namespace graft::engine {

FirstConvolution::FirstConvolution(const Shape& in, const FoldedLayer& weights)
    : channels_(static_cast<int>(in.channels)),
      height_(static_cast<int>(in.height)),
      width_(static_cast<int>(in.width)),
      blocks_((static_cast<int>(weights.bias.size()) + k_->block - 1) / k_->block),
      outputs_((blocks_ + 1) / 2 * k_->nr),
      relu_(weights.relu) {
  weights_ = Buffer(static_cast<size_t>(outputs_) * channels_ * 9);
  bias_ = Buffer(static_cast<size_t>(outputs_));
  std::copy(weights.bias.begin(), weights.bias.end(), bias_.data());
  const int taps = channels_ * 9;
  const int nr = k_->nr;
  for (int k = 0; k < static_cast<int>(weights.bias.size()); ++k)
    for (int t = 0; t < taps; ++t)
      weights_.data()[(static_cast<size_t>(k / nr) * taps + t) * nr + k % nr] =
          weights.weight[static_cast<size_t>(k) * taps + t];
}

// A border of one pixel, and as far as a group of pixels that starts at the last pixel reads.
int FirstConvolution::padded_columns() const { return width_ + kRowPixels + 1; }

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
  const Kernels& k = *k_;
  const int columns = padded_columns();
  const ptrdiff_t plane = static_cast<ptrdiff_t>(height_ + 2) * columns;
  const int whole = width_ / kRowPixels * kRowPixels;
  alignas(64) float tail[2][kRowPixels * kMostBlock];
  for (int unit = member.take(); unit < count * height_; unit = member.take()) {
    const int n = first + unit / height_;
    const int y = unit % height_;
    const float* in =
        padded + static_cast<size_t>(n) * padded_image() + static_cast<size_t>(y) * columns;
    for (int panel = 0; panel < outputs_ / k.nr; ++panel) {
      const float* w = weights_.data() + static_cast<size_t>(panel) * channels_ * 9 * k.nr;
      const float* bias = bias_.data() + panel * k.nr;
      const bool both = 2 * panel + 1 < out.blocks();
      // The border of the output stays zero: the last, partial group goes through a buffer.
      for (int x = 0; x < width_; x += kRowPixels) {
        const bool direct = x < whole;
        const int run = direct ? whole - x : kRowPixels;
        float* out0 = out.at(n, 2 * panel, y + 1, x + 1);
        float* out1 = both ? out.at(n, 2 * panel + 1, y + 1, x + 1) : nullptr;
        k.convolve_row(in + x, channels_, plane, columns, w, bias, relu_, run,
                       direct ? out0 : tail[0],
                       !both    ? nullptr
                       : direct ? out1
                                : tail[1]);
        if (direct) {
          x += run - kRowPixels;
          continue;
        }
        const size_t bytes = sizeof(float) * k.block * std::min(kRowPixels, width_ - x);
        std::memcpy(out0, tail[0], bytes);
        if (both) std::memcpy(out1, tail[1], bytes);
      }
    }
  }
}

void FirstConvolution::compute_patch(const float* padded, int panel, int y, int x, int rows,
                                     int columns, int stride, float* patch) const {
  const Kernels& k = *k_;
  const ptrdiff_t row = padded_columns();
  const ptrdiff_t plane = (height_ + 2) * row;
  const float* w = weights_.data() + static_cast<size_t>(panel) * channels_ * 9 * k.nr;
  const ptrdiff_t half = static_cast<ptrdiff_t>(rows) * stride * k.block;
  const int begin = std::clamp(-x, 0, columns);            // pixels left of the map …
  const int end = std::clamp(width_ - x, begin, columns);  // … and within it
  const auto clear = [&](float* to, int pixels) {
    std::fill_n(to, pixels * k.block, 0.0F);
    std::fill_n(to + half, pixels * k.block, 0.0F);
  };
  for (int r = 0; r < rows; ++r) {
    float* to = patch + static_cast<ptrdiff_t>(r) * stride * k.block;
    if (y + r < 0 || y + r >= height_) {
      clear(to, columns);
      continue;
    }
    float* inside = to + static_cast<ptrdiff_t>(begin) * k.block;
    k.convolve_row(padded + (y + r) * row + x + begin, channels_, plane, row, w,
                   bias_.data() + panel * k.nr, relu_, end - begin, inside,
                   2 * panel + 1 < blocks_ ? inside + half : nullptr);
    clear(to, begin);
    clear(to + static_cast<ptrdiff_t>(end) * k.block, columns - end);
  }
}

}  // namespace graft::engine
