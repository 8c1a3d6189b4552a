#include "engine/tile_convolution.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/bfloat16.h"
#include "base/half.h"

namespace graft::engine {
namespace {

// Input of a unit of work: with the weights of a panel (295 KB for 512 channels) and the next one's
// in a second-level cache of 2 MB, which processors with AMX have. The study that this follows
// found sizes flat within 3 %.
constexpr size_t kUnitBytes = 520'000;
constexpr int kMostRows = 16;
// Units for each thread, where there are panels to divide.
constexpr int kUnitsEach = 4;

int divided(int value, int parts) { return (value + parts - 1) / parts; }

}  // namespace

TileBounds::TileBounds(const FoldedLayer& weights, TileFormat format) {
  if (format == TileFormat::bf16) return;
  const size_t each = weights.weight.size() / weights.bias.size();
  float most = 0;
  for (size_t k = 0; k < weights.bias.size(); ++k) {
    double sum = 0;
    for (size_t i = k * each; i < (k + 1) * each; ++i) {
      most = std::max(most, std::abs(weights.weight[i]));
      sum += std::abs(weights.weight[i]);
    }
    sums = std::max(sums, static_cast<float>(sum));
    bias = std::max(bias, std::abs(weights.bias[k]));
  }
  // The largest weight between 2048 and 4096: low halves of smaller ones would be subnormal.
  constexpr int kExponent = 11;
  if (most > 0 && std::isfinite(most))
    scale = std::ldexp(1.0F, std::clamp(kExponent - std::ilogb(most), -30, 30));
}

float TileBounds::bound(float most) const {
  constexpr float kRounding = 1.001F;
  return (most * sums + bias) * kRounding;
}

void pack_weight(float weight, float scale, TileFormat format, int output, int channel,
                 uint16_t* tap) {
  uint16_t* to =
      tap + output / 16 * (kTapWeights / 2) + channel / 2 * 32 + output % 16 * 2 + channel % 2;
  if (format == TileFormat::bf16)
    *to = to_bfloat16(weight);
  else
    split_halves(weight * scale, to, to + kTapWeights);
}

/// Strips of some images times some panels of outputs.
struct TileConvolution::Unit {
  int image, images;
  int strip;
  int panel, panels;
};

TileConvolution::TileConvolution(const Shape& in, const Shape& out, const FoldedLayer& weights,
                                 bool pool, TileFormat format, Team& team)
    : channels_(static_cast<int>(in.channels)),
      outputs_(static_cast<int>(out.channels)),
      pool_(pool),
      relu_(weights.relu),
      format_(format),
      bounds_(weights, format),
      image_bytes_(TileMaps(in, format, 1).image() * tile_parts(format) * sizeof(uint16_t)) {
  const TileMaps from(in, format, 1);
  const TileMaps to(pool ? Shape{out.channels, in.height / 2, in.width / 2, false} : out, format,
                    1);
  const int height = pool ? from.height / 2 * 2 : from.height;
  const int width = pool ? from.width / 2 * 2 : from.width;
  // Rows in whole tiles need no column of zeros to be computed and cleared, nor sums of a strip to
  // pool; tiles of 15 waste less than runs do.
  rows_ = !pool && width % 16 != 0 && width % 15 == 0 ? 15 : 16;
  runs_ = width % rows_ != 0;
  const size_t row_bytes = image_bytes_ / (from.height + 2);
  const int fits = std::clamp(static_cast<int>(kUnitBytes / row_bytes) - 2, 2, kMostRows);
  const int count = std::max(1, divided(height, fits));
  int each = divided(height, count);
  if (pool) each += each % 2;
  for (int top = 0; top < height; top += each) {
    Strip strip{top, std::min(top + each, height), {}};
    if (runs_)
      cut_into_runs(strip, from);
    else
      cut_into_rows(strip, from, to);
    strips_.push_back(std::move(strip));
  }
  bias_ = Buffer(static_cast<size_t>(panels()) * kTileChannels);
  std::copy(weights.bias.begin(), weights.bias.end(), bias_.data());
  pack(weights, team);
}

void TileConvolution::cut_into_rows(Strip& strip, const TileMaps& in, const TileMaps& out) const {
  const int width = pool_ ? in.width / 2 * 2 : in.width;
  for (int y = strip.top; y < strip.bottom; y += 2)
    for (int x = 0; x < width; x += rows_)
      for (int down = 0; down < std::min(2, strip.bottom - y); ++down)
        strip.tiles.push_back({in.pixel(y + down - 1, x - 1),
                               pool_ ? out.pixel(y / 2, x / 2) : out.pixel(y + down, x), rows_,
                               -1});
}

void TileConvolution::cut_into_runs(Strip& strip, const TileMaps& in) const {
  const int stride = in.stride();
  const int begin = in.pixel(strip.top, 0);
  const int end = in.pixel(strip.bottom - 1, in.width);
  for (int at = begin; at < end; at += rows_) {
    Tile tile{at - stride - 1, pool_ ? at - begin : at, std::min(rows_, end - at), -1};
    const int zero = divided(at, stride) * stride;  // columns of zeros are multiples of it
    if (zero < at + tile.pixels) tile.edge = zero - at;
    strip.tiles.push_back(tile);
  }
}

void TileConvolution::pack(const FoldedLayer& weights, Team& team) {
  weights_ = Buffer(packed(channels_, outputs_, format_));
  auto* packed = reinterpret_cast<uint16_t*>(weights_.data());
  team.run([&](Team::Member& member) {
    for (int unit = member.take(); unit < panels() * blocks(); unit = member.take()) {
      const int panel = unit / blocks();
      const int block = unit % blocks();
      const int parts = tile_parts(format_);
      uint16_t* to =
          packed + panel * panel_weights() + static_cast<size_t>(block) * 9 * parts * kTapWeights;
      for (int o = 0; o < std::min(kTileChannels, outputs_ - panel * kTileChannels); ++o)
        for (int c = 0; c < std::min(kTileChannels, channels_ - block * kTileChannels); ++c)
          for (int tap = 0; tap < 9; ++tap)
            pack_weight(weights.weight[(static_cast<size_t>(panel * kTileChannels + o) * channels_ +
                                        block * kTileChannels + c) *
                                           9 +
                                       tap],
                        bounds_.scale, format_, o, c,
                        to + static_cast<ptrdiff_t>(tap) * parts * kTapWeights);
    }
  });
}

std::string TileConvolution::description() const {
  return fmt::format("{} of {}", runs_ ? "runs" : "rows", rows_);
}

size_t TileConvolution::packed(int64_t channels, int64_t outputs, TileFormat format) {
  const auto blocks = [](int64_t n) { return (n + kTileChannels - 1) / kTileChannels; };
  return static_cast<size_t>(blocks(channels) * blocks(outputs)) * 9 * tile_parts(format) *
         kTapWeights * sizeof(uint16_t) / sizeof(float);
}

size_t TileConvolution::private_scratch() const {
  size_t tiles = 2;
  if (pool_ && runs_)
    for (const Strip& strip : strips_) tiles = std::max(tiles, strip.tiles.size() + 1);
  return tiles * kTileSums;
}

void TileConvolution::choose_scales(Team::Member& member, const TileMaps& in, const TileMaps& out,
                                    int first, int count) const {
  if (member.index() != 0) return;
  for (int n = first; n < first + count; ++n)
    out.scales[n] = {scale_for(bounds_.bound(in.scales[n].most)), 0};
}

void TileConvolution::run(Team::Member& member, const TileKernels& k, const TileMaps& in,
                          const TileMaps& out, int first, int count, float* scratch) const {
  const int team = member.team_size();
  const int strips = static_cast<int>(strips_.size());
  const int images =
      strips > 1 ? 1 : std::clamp(static_cast<int>(kUnitBytes / image_bytes_), 1, count);
  const int places = divided(count, images) * strips;
  int split = panels();
  while (split > 1 && places * divided(panels(), split) < kUnitsEach * team)
    split = divided(split, 2);
  const int parts = divided(panels(), split);
  k.enter(rows_);
  // Of two threads one takes from the front and one from the back, so that each meets in its cache
  // what it wrote.
  int mine = 0;
  for (int taken = member.take(); taken < places * parts; taken = member.take()) {
    int index = taken;
    if (team == 2) index = member.index() == 0 ? mine++ : places * parts - 1 - mine++;
    const int place = index / parts;
    const int image = place / strips * images;
    const int panel = index % parts * split;
    run_unit(k,
             {first + image, std::min(images, count - image), place % strips, panel,
              std::min(split, panels() - panel)},
             in, out, scratch);
  }
  k.leave();
}

void TileConvolution::run_unit(const TileKernels& k, const Unit& unit, const TileMaps& in,
                               const TileMaps& out, float* scratch) const {
  const Strip& strip = strips_[unit.strip];
  const auto tiles = static_cast<int>(strip.tiles.size());
  const bool whole_strip = pool_ && runs_;
  const auto* weights = reinterpret_cast<const uint16_t*>(weights_.data());
  // While a panel is used, the next one's weights come from memory, a few lines with each tap.
  const int taps = unit.images * divided(tiles, 2) * blocks() * 9;
  const auto panel_lines = static_cast<int>(panel_weights() * sizeof(uint16_t) / 64);
  const int lines = divided(panel_lines, taps);
  for (int panel = unit.panel; panel < unit.panel + unit.panels; ++panel) {
    const uint16_t* next = weights + (panel + 1) % panels() * panel_weights();
    int left = panels() > 1 ? panel_lines : 0;
    for (int n = unit.image; n < unit.image + unit.images; ++n) {
      const ImageFactors factors(bounds_.scale, in.scales, out, n);
      alignas(64) float bias[kTileChannels];
      for (int o = 0; o < kTileChannels; ++o)
        bias[o] = bias_.data()[panel * kTileChannels + o] * factors.sums;
      float most = 0;
      const TileRounding how{relu_, factors.rounding, out.low, &most};
      const uint16_t* from = in.at(n, 0);
      uint16_t* to = out.at(n, panel);
      const auto pixels = [&](int tile) {
        return from + static_cast<ptrdiff_t>(strip.tiles[tile].in) * kTileChannels;
      };
      for (int t = 0; t < tiles; t += 2) {
        const bool two = t + 1 < tiles;
        float* sums = scratch + (whole_strip ? static_cast<ptrdiff_t>(t) * kTileSums : 0);
        TileProduct product{{pixels(t), two ? pixels(t + 1) : nullptr},
                            in.low,
                            in.plane(),
                            static_cast<size_t>(in.stride()) * kTileChannels,
                            rows_,
                            weights + panel * panel_weights(),
                            blocks(),
                            bias,
                            {sums, sums + kTileSums},
                            next,
                            left > 0 ? lines : 0,
                            {}};
        if (panel == unit.panel && t + 3 < tiles) {
          // What is new in the next two tiles' taps: the row below, behind the first column.
          const ptrdiff_t below = ptrdiff_t{2} * in.stride() * kTileChannels + kTileChannels;
          product.next_pixels[0] = pixels(t + 2) + below;
          product.next_pixels[1] = pixels(t + 3) + below;
        }
        k.convolve(product);
        const int prefetched = product.lines * blocks() * 9;
        next += static_cast<ptrdiff_t>(prefetched) * 32;
        left -= prefetched;
        if (!whole_strip)
          finish_tiles(k, &strip.tiles[t], two ? 2 : 1, sums, to, out.stride(), how);
      }
      if (whole_strip) finish_strip(k, strip, in, out, scratch, to, how);
      if (out.scales != nullptr) raise_most(out.scales[n], most / factors.sums);
    }
  }
}

void TileConvolution::finish_tiles(const TileKernels& k, const Tile* tiles, int count,
                                   const float* sums, uint16_t* out, int stride,
                                   const TileRounding& how) const {
  if (pool_) {
    k.pool(sums, sums + kTileSums, rows_ / 2, how,
           out + static_cast<ptrdiff_t>(tiles->out) * kTileChannels);
    return;
  }
  for (int i = 0; i < count; ++i, sums += kTileSums) {
    const Tile& tile = tiles[i];
    uint16_t* to = out + static_cast<ptrdiff_t>(tile.out) * kTileChannels;
    k.round(sums, tile.pixels, how, to);
    if (tile.edge < 0) continue;
    for (int zero = tile.edge; zero < tile.pixels; zero += stride)
      for (int part = 0; part < tile_parts(format_); ++part)
        std::memset(to + part * how.low + static_cast<ptrdiff_t>(zero) * kTileChannels, 0,
                    kTileChannels * sizeof(uint16_t));
  }
}

void TileConvolution::finish_strip(const TileKernels& k, const Strip& strip, const TileMaps& in,
                                   const TileMaps& out, const float* sums, uint16_t* plane,
                                   const TileRounding& how) const {
  const auto row = [&](int y) {
    return sums + static_cast<ptrdiff_t>(y - strip.top) * in.stride() * kTileChannels;
  };
  for (int y = strip.top; y < strip.bottom; y += 2)
    k.pool(row(y), row(y + 1), out.width, how,
           plane + static_cast<ptrdiff_t>(out.pixel(y / 2, 0)) * kTileChannels);
}

}  // namespace graft::engine
