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

size_t groups_of(int count) { return (static_cast<size_t>(count) + kMR - 1) / kMR; }

}  // namespace

Dense::Dense(int64_t inputs, const FoldedLayer& weights, Team& team)
    : inputs_(static_cast<size_t>(inputs)),
      padded_(round_up(inputs_, kBlock)),
      outputs_(weights.bias.size()),
      relu_(weights.relu) {
  const size_t panels = round_up(outputs_, kNR) / kNR;
  weights_ = Buffer(panels * padded_ * kNR);
  bias_ = Buffer(panels * kNR);
  std::copy(weights.bias.begin(), weights.bias.end(), bias_.data());
  team.run([&](Team::Member& member) {
    for (auto panel = static_cast<size_t>(member.take()); panel < panels;
         panel = static_cast<size_t>(member.take())) {
      float* to = weights_.data() + panel * padded_ * kNR;
      const size_t end = std::min<size_t>(kNR, outputs_ - panel * kNR);
      for (size_t begin = 0; begin < inputs_; begin += kPackedAtOnce)
        for (size_t k = 0; k < end; ++k) {
          const float* from = &weights.weight[(panel * kNR + k) * inputs_];
          for (size_t i = begin; i < std::min(begin + kPackedAtOnce, inputs_); ++i)
            to[i * kNR + k] = from[i];
        }
    }
  });
}

size_t Dense::packed_inputs(int count) const { return groups_of(count) * kMR * padded_; }

size_t Dense::private_scratch(int count) { return groups_of(count) * kMR * kNR; }

void Dense::run(Team::Member& member, const float* in, float* out, int count, float* packed,
                float* private_scratch) const {
  const Kernels& kernel = kernels();
  const size_t groups = groups_of(count);
  const size_t blocks = padded_ / kBlock;
  // [group][k / 8][6][8]; images that do not exist are zero. A unit is 1,024 inputs of a group (24
  // KB): enough work to take, and 24 units for the longest vector of VGG (25088). Not measured.
  constexpr size_t kBlocksAtOnce = 128;
  const size_t spans = (blocks + kBlocksAtOnce - 1) / kBlocksAtOnce;
  for (auto unit = static_cast<size_t>(member.take()); unit < groups * spans;
       unit = static_cast<size_t>(member.take())) {
    const size_t group = unit / spans;
    const size_t begin = unit % spans * kBlocksAtOnce;
    for (size_t b = begin; b < std::min(begin + kBlocksAtOnce, blocks); ++b) {
      float* to = packed + (group * blocks + b) * (kMR * kBlock);
      for (size_t t = 0; t < kMR; ++t)
        for (size_t k = 0; k < kBlock; ++k) {
          const size_t image = group * kMR + t;
          const size_t input = b * kBlock + k;
          const bool real = image < static_cast<size_t>(count) && input < inputs_;
          to[t * kBlock + k] = real ? in[image * inputs_ + input] : 0.0F;
        }
    }
  }
  member.next_region();
  const auto panels = static_cast<int>(round_up(outputs_, kNR) / kNR);
  for (int panel = member.take(); panel < panels; panel = member.take()) {
    const float* weights = weights_.data() + static_cast<size_t>(panel) * padded_ * kNR;
    for (size_t first = 0; first < padded_; first += kDepth) {
      const size_t depth = std::min(kDepth, padded_ - first);
      const float* b = weights + first * kNR;
      // The weights come from memory: fetched 16 KB ahead, once, by the first group, at a cache
      // line for each k, 8 for each 8.
      for (size_t g = 0; g < groups; ++g)
        kernel.multiply(packed + (g * padded_ + first) * kMR, b, private_scratch + g * kMR * kNR,
                        static_cast<int>(std::min<size_t>(kMR, count - g * kMR)), depth / kBlock,
                        first > 0, b + kDepth * kNR, g == 0 ? 8 : 0);
    }
    const size_t begin = static_cast<size_t>(panel) * kNR;
    const size_t end = std::min<size_t>(begin + kNR, outputs_);
    for (size_t image = 0; image < static_cast<size_t>(count); ++image)
      for (size_t o = begin; o < end; ++o) {
        const float value = private_scratch[image * kNR + o - begin] + bias_.data()[o];
        out[image * outputs_ + o] = relu_ ? std::max(value, 0.0F) : value;
      }
  }
}

}  // namespace graft::engine
