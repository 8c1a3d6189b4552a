#include "engine/tile_maps.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "base/bfloat16.h"
#include "base/half.h"

namespace graft::engine {
namespace {

// Halves end at 65504; beyond these exponents, products of scales would leave float32.
constexpr int kLargestExponent = 15;
constexpr int kMostScaling = 50;

float number(const TileMaps& maps, const uint16_t* at, float scale) {
  if (maps.format == TileFormat::bf16) return from_bfloat16(*at);
  return (from_any_half(*at) + from_any_half(at[maps.low])) * scale;
}

void put(const TileMaps& maps, float x, uint16_t* to) {
  if (maps.format == TileFormat::bf16)
    *to = to_bfloat16(x);
  else
    split_halves(x, to, to + maps.low);
}

/// Calls `visit(n, number of a row's first pixel in plain float32, the same in the maps)` for each
/// channel and row.
template <typename Visit>
void for_each_row(Team::Member& member, const TileMaps& maps, int first, int count,
                  const Visit& visit) {
  const int pixels = maps.height * maps.width;
  for (int unit = member.take(); unit < count * maps.blocks(); unit = member.take()) {
    const int n = first + unit / maps.blocks();
    const int b = unit % maps.blocks();
    for (int c = 0; c < std::min(kTileChannels, maps.channels - b * kTileChannels); ++c) {
      const size_t plane =
          (static_cast<size_t>(n) * maps.channels + b * kTileChannels + c) * pixels;
      for (int y = 0; y < maps.height; ++y)
        visit(n, plane + static_cast<size_t>(y) * maps.width,
              maps.at(n, b) + static_cast<ptrdiff_t>(maps.pixel(y, 0)) * kTileChannels + c);
    }
  }
}

}  // namespace

float scale_for(float most) {
  if (!(most > 0) || std::isinf(most)) return 1;
  return std::ldexp(
      1.0F, std::clamp(kLargestExponent - 1 - std::ilogb(most), -kMostScaling, kMostScaling));
}

void raise_most(ImageScale& image, float most) {
  const std::atomic_ref<float> shared(image.most);
  float before = shared.load(std::memory_order_relaxed);
  while (!(most <= before) && !shared.compare_exchange_weak(before, most)) {
    if (std::isnan(before)) return;
  }
}

void measure(Team::Member& member, const float* plain, int64_t elements, ImageScale* scales,
             int first, int count) {
  for (int unit = member.take(); unit < count; unit = member.take()) {
    const float* image = plain + (first + unit) * elements;
    float most = 0;
    for (int64_t i = 0; i < elements; ++i) most = std::max(most, std::abs(image[i]));
    scales[first + unit] = {scale_for(most), most};
  }
}

void to_tile_maps(Team::Member& member, const float* plain, const TileMaps& maps, int first,
                  int count) {
  for_each_row(member, maps, first, count, [&](int n, size_t from, uint16_t* to) {
    const float scale = maps.scales != nullptr ? maps.scales[n].scale : 1;
    for (int x = 0; x < maps.width; ++x, to += kTileChannels)
      put(maps, plain[from + x] * scale, to);
  });
}

void tile_maps_to_plain(Team::Member& member, const TileMaps& maps, float* plain, int first,
                        int count) {
  for_each_row(member, maps, first, count, [&](int n, size_t to, const uint16_t* from) {
    const float scale = maps.scales != nullptr ? 1 / maps.scales[n].scale : 1;
    for (int x = 0; x < maps.width; ++x, from += kTileChannels)
      plain[to + x] = number(maps, from, scale);
  });
}

void pool(Team::Member& member, const TileMaps& in, const TileMaps& out, int first, int count) {
  const auto larger = [](float a, float b) { return a > b ? a : b; };  // the second if one is NaN
  const ptrdiff_t below = ptrdiff_t{in.stride()} * kTileChannels;
  for (int unit = member.take(); unit < count * in.blocks(); unit = member.take()) {
    const int n = first + unit / in.blocks();
    const int b = unit % in.blocks();
    if (b == 0 && in.scales != nullptr) out.scales[n] = in.scales[n];
    for (int y = 0; y < out.height; ++y) {
      const uint16_t* from =
          in.at(n, b) + static_cast<ptrdiff_t>(in.pixel(2 * y, 0)) * kTileChannels;
      uint16_t* to = out.at(n, b) + static_cast<ptrdiff_t>(out.pixel(y, 0)) * kTileChannels;
      for (int x = 0; x < out.width; ++x, from += 2 * kTileChannels, to += kTileChannels)
        for (int c = 0; c < kTileChannels; ++c) {
          const auto at = [&](ptrdiff_t i) { return number(in, from + i + c, 1); };
          put(out,
              larger(larger(at(0), at(kTileChannels)),
                     larger(at(below), at(below + kTileChannels))),
              to + c);
        }
    }
  }
}

}  // namespace graft::engine
