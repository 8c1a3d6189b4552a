#include "engine/dense.h"

#include <algorithm>

namespace graft::engine {
namespace {

// Inputs summed in registers before products go through memory: a panel of weights of 16 KB stays
// in the first-level cache while several groups of images use it.
constexpr size_t kDepth = 256;

// Inputs packed at once, so that neither side jumps about in memory: 64 × 16 weights are one page
// of 4 KB, read from 16 rows of four cache lines. Not measured.
constexpr size_t kPackedAtOnce = 64;

size_t round_up(size_t value, size_t step) { return (value + step - 1) / step * step; }

size_t groups_of(int count) {
  const int mr = kernels().mr;
  return static_cast<size_t>((count + mr - 1) / mr);
}

}  // namespace

Dense::Dense(int64_t inputs, const FoldedLayer& weights, Team& team)
    : inputs_(static_cast<size_t>(inputs)),
      padded_(round_up(inputs_, static_cast<size_t>(kernels().block))),
      outputs_(weights.bias.size()),
      relu_(weights.relu) {
  const auto nr = static_cast<size_t>(kernels().nr);
  const size_t panels = (outputs_ + nr - 1) / nr;
  weights_ = Buffer(panels * padded_ * nr);
  bias_ = Buffer(panels * nr);
  std::copy(weights.bias.begin(), weights.bias.end(), bias_.data());
  team.run([&](Team::Member& member) {
    for (auto panel = static_cast<size_t>(member.take()); panel < panels;
         panel = static_cast<size_t>(member.take())) {
      float* to = weights_.data() + panel * padded_ * nr;
      const size_t end = std::min(nr, outputs_ - panel * nr);
      for (size_t begin = 0; begin < inputs_; begin += kPackedAtOnce)
        for (size_t k = 0; k < end; ++k) {
          const float* from = &weights.weight[(panel * nr + k) * inputs_];
          for (size_t i = begin; i < std::min(begin + kPackedAtOnce, inputs_); ++i)
            to[i * nr + k] = from[i];
        }
    }
  });
}

size_t Dense::packed_inputs(int count) const { return groups_of(count) * kernels().mr * padded_; }

size_t Dense::private_scratch(int count) { return groups_of(count) * kernels().mr * kernels().nr; }

void Dense::run(Team::Member& member, const float* in, float* out, int count, float* packed,
                float* private_scratch) const {
  const Kernels& kernel = kernels();
  const auto block = static_cast<size_t>(kernel.block);
  const auto mr = static_cast<size_t>(kernel.mr);
  const auto nr = static_cast<size_t>(kernel.nr);
  const size_t groups = groups_of(count);
  const size_t blocks = padded_ / block;
  // [group][k / block][mr][block]; images that do not exist are zero. A unit is 1,024 inputs of a
  // group (24 KB of six): enough work to take, and 24 units for the longest vector of VGG (25088).
  // Not measured.
  const size_t blocks_at_once = 1024 / block;
  const size_t spans = (blocks + blocks_at_once - 1) / blocks_at_once;
  for (auto unit = static_cast<size_t>(member.take()); unit < groups * spans;
       unit = static_cast<size_t>(member.take())) {
    const size_t group = unit / spans;
    const size_t begin = unit % spans * blocks_at_once;
    for (size_t b = begin; b < std::min(begin + blocks_at_once, blocks); ++b) {
      float* to = packed + (group * blocks + b) * (mr * block);
      for (size_t t = 0; t < mr; ++t)
        for (size_t k = 0; k < block; ++k) {
          const size_t image = group * mr + t;
          const size_t input = b * block + k;
          const bool real = image < static_cast<size_t>(count) && input < inputs_;
          to[t * block + k] = real ? in[image * inputs_ + input] : 0.0F;
        }
    }
  }
  member.next_region();
  const auto panels = static_cast<int>((outputs_ + nr - 1) / nr);
  for (int panel = member.take(); panel < panels; panel = member.take()) {
    const float* weights = weights_.data() + static_cast<size_t>(panel) * padded_ * nr;
    for (size_t first = 0; first < padded_; first += kDepth) {
      const size_t depth = std::min(kDepth, padded_ - first);
      const float* b = weights + first * nr;
      // The weights come from memory: fetched 16 KB ahead, once, by the first group.
      for (size_t g = 0; g < groups; ++g)
        kernel.multiply(packed + (g * padded_ + first) * mr, b, private_scratch + g * mr * nr,
                        static_cast<int>(std::min(mr, count - g * mr)), kernel.nr, depth / block,
                        first > 0, b + kDepth * nr, g == 0 ? 1 : 0);
    }
    const size_t begin = static_cast<size_t>(panel) * nr;
    const size_t end = std::min(begin + nr, outputs_);
    for (size_t image = 0; image < static_cast<size_t>(count); ++image)
      for (size_t o = begin; o < end; ++o) {
        const float value = private_scratch[image * nr + o - begin] + bias_.data()[o];
        out[image * outputs_ + o] = relu_ ? std::max(value, 0.0F) : value;
      }
  }
}

}  // namespace graft::engine
