#include "engine/tile_first_convolution.h"

#include <algorithm>
#include <cstring>

#include "base/bfloat16.h"
#include "base/half.h"

namespace graft::engine {
namespace {

// Rows of pixels in a unit of work. Not measured.
constexpr int kRowsAtOnce = 4;

/// The taps of a row of pixels as rows of tiles. What lies in the scratch beyond the last is in
/// rows that are not stored; the zeros behind a pixel's taps are written, for what is there may be
/// infinite.
template <int kChannels>
void gather(const uint16_t* rows, size_t row, int pixels, uint16_t* to) {
  constexpr int kAcross = 3 * kChannels;
  for (int x = 0; x < pixels; ++x, rows += kChannels, to += kTileChannels) {
    for (int r = 0; r < 3; ++r)
      std::memcpy(to + ptrdiff_t{r} * kAcross, rows + r * row, kAcross * sizeof(uint16_t));
    std::memset(to + ptrdiff_t{3} * kAcross, 0, (kTileChannels - 3 * kAcross) * sizeof(uint16_t));
  }
}

}  // namespace

TileFirstConvolution::TileFirstConvolution(const Shape& in, const Shape& out,
                                           const FoldedLayer& weights, TileFormat format)
    : channels_(static_cast<int>(in.channels)),
      height_(static_cast<int>(in.height)),
      width_(static_cast<int>(in.width)),
      panels_((static_cast<int>(out.channels) + kTileChannels - 1) / kTileChannels),
      relu_(weights.relu),
      format_(format),
      bounds_(weights, format),
      weights_(static_cast<size_t>(panels_) * tile_parts(format) * kTapWeights * sizeof(uint16_t) /
               sizeof(float)),
      bias_(static_cast<size_t>(panels_) * kTileChannels) {
  std::copy(weights.bias.begin(), weights.bias.end(), bias_.data());
  auto* packed = reinterpret_cast<uint16_t*>(weights_.data());
  for (int o = 0; o < static_cast<int>(weights.bias.size()); ++o)
    for (int c = 0; c < channels_; ++c)
      for (int tap = 0; tap < 9; ++tap)
        pack_weight(
            weights.weight[(static_cast<size_t>(o) * channels_ + c) * 9 + tap], bounds_.scale,
            format, o % kTileChannels, tap * channels_ + c,
            packed + static_cast<ptrdiff_t>(o / kTileChannels) * tile_parts(format) * kTapWeights);
}

size_t TileFirstConvolution::padded_row() const {
  return static_cast<size_t>(width_ + 2) * channels_;
}

size_t TileFirstConvolution::low() const {
  return format_ == TileFormat::halves ? padded_row() * (height_ + 2) : 0;
}

int TileFirstConvolution::tiles() const {
  return (width_ + 2 * kTilePixels - 1) / (2 * kTilePixels) * 2;
}

size_t TileFirstConvolution::padded_image() const {
  return (padded_row() * (height_ + 2) * tile_parts(format_) * sizeof(uint16_t) + sizeof(float) -
          1) /
         sizeof(float);
}

size_t TileFirstConvolution::private_scratch() const {
  return 2 * kTileSums + static_cast<size_t>(tiles()) * tile_parts(format_) * kTileSums *
                             sizeof(uint16_t) / sizeof(float);
}

void TileFirstConvolution::pad(Team::Member& member, const float* in, const ImageScale* scales,
                               float* padded, int count) const {
  for (int unit = member.take(); unit < count * height_; unit = member.take()) {
    const int n = unit / height_;
    const int y = unit % height_;
    const float scale = scales != nullptr ? scales[n].scale : 1;
    uint16_t* to = reinterpret_cast<uint16_t*>(padded + n * padded_image()) +
                   (y + 1) * padded_row() + channels_;
    for (int c = 0; c < channels_; ++c) {
      const float* from = in + ((static_cast<size_t>(n) * channels_ + c) * height_ + y) * width_;
      for (int x = 0; x < width_; ++x) {
        uint16_t* at = to + static_cast<ptrdiff_t>(x) * channels_ + c;
        if (format_ == TileFormat::bf16)
          *at = to_bfloat16(from[x]);
        else
          split_halves(from[x] * scale, at, at + low());
      }
    }
  }
}

void TileFirstConvolution::choose_scales(Team::Member& member, const ImageScale* in,
                                         const TileMaps& out, int first, int count) const {
  if (member.index() != 0) return;
  for (int n = first; n < first + count; ++n)
    out.scales[n] = {scale_for(bounds_.bound(in[n].most)), 0};
}

void TileFirstConvolution::run(Team::Member& member, const TileKernels& k, const float* padded,
                               const ImageScale* scales, const TileMaps& out, int first, int count,
                               float* scratch) const {
  float* sums = scratch;
  auto* patch = reinterpret_cast<uint16_t*>(scratch + 2 * kTileSums);
  const size_t patch_low = static_cast<size_t>(tiles()) * kTilePixels * kTileChannels;
  const auto* weights = reinterpret_cast<const uint16_t*>(weights_.data());
  const int groups = (height_ + kRowsAtOnce - 1) / kRowsAtOnce;
  k.enter(kTilePixels);
  for (int unit = member.take(); unit < count * groups; unit = member.take()) {
    const int n = first + unit / groups;
    const auto* image = reinterpret_cast<const uint16_t*>(padded + n * padded_image());
    const ImageFactors factors(bounds_.scale, scales, out, n);
    float most = 0;
    const TileRounding how{relu_, factors.rounding, out.low, &most};
    const int top = unit % groups * kRowsAtOnce;
    for (int y = top; y < std::min(top + kRowsAtOnce, height_); ++y) {
      for (int part = 0; part < tile_parts(format_); ++part) {
        const uint16_t* rows = image + y * padded_row() + part * low();
        uint16_t* to = patch + part * patch_low;
        if (channels_ == 3)
          gather<3>(rows, padded_row(), width_, to);
        else if (channels_ == 2)
          gather<2>(rows, padded_row(), width_, to);
        else
          gather<1>(rows, padded_row(), width_, to);
      }
      for (int panel = 0; panel < panels_; ++panel) {
        alignas(64) float bias[kTileChannels];
        for (int o = 0; o < kTileChannels; ++o)
          bias[o] = bias_.data()[panel * kTileChannels + o] * factors.sums;
        for (int x = 0; x < width_; x += 2 * kTilePixels) {
          const uint16_t* pixels = patch + static_cast<ptrdiff_t>(x) * kTileChannels;
          k.multiply({{pixels, pixels + ptrdiff_t{kTilePixels} * kTileChannels},
                      patch_low,
                      0,
                      0,
                      kTilePixels,
                      weights + static_cast<ptrdiff_t>(panel) * tile_parts(format_) * kTapWeights,
                      1,
                      bias,
                      {sums, sums + kTileSums},
                      nullptr,
                      0,
                      {}});
          k.round(sums, std::min(2 * kTilePixels, width_ - x), how,
                  out.at(n, panel) + static_cast<ptrdiff_t>(out.pixel(y, x)) * kTileChannels);
        }
      }
    }
    if (out.scales != nullptr) raise_most(out.scales[n], most / factors.sums);
  }
  k.leave();
}

}  // namespace graft::engine
