#include "engine/tile_maps.h"

#include <algorithm>
#include <bit>

#include "base/bfloat16.h"

namespace graft::engine {
namespace {

/// Calls `visit(plane of the map's pixels in float32, first pixel of a row of theirs in the maps,
/// y)` for each channel and row.
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
        visit(plane + static_cast<size_t>(y) * maps.width,
              maps.at(n, b) + static_cast<ptrdiff_t>(maps.pixel(y, 0)) * kTileChannels + c);
    }
  }
}

}  // namespace

void to_tile_maps(Team::Member& member, const float* plain, const TileMaps& maps, int first,
                  int count) {
  for_each_row(member, maps, first, count, [&](size_t from, uint16_t* to) {
    for (int x = 0; x < maps.width; ++x, to += kTileChannels) *to = to_bfloat16(plain[from + x]);
  });
}

void tile_maps_to_plain(Team::Member& member, const TileMaps& maps, float* plain, int first,
                        int count) {
  for_each_row(member, maps, first, count, [&](size_t to, const uint16_t* from) {
    for (int x = 0; x < maps.width; ++x, from += kTileChannels)
      plain[to + x] = from_bfloat16(*from);
  });
}

void pool(Team::Member& member, const TileMaps& in, const TileMaps& out, int first, int count) {
  const auto larger = [](float a, float b) { return a > b ? a : b; };  // the second if one is NaN
  const ptrdiff_t below = ptrdiff_t{in.stride()} * kTileChannels;
  for (int unit = member.take(); unit < count * in.blocks(); unit = member.take()) {
    const int n = first + unit / in.blocks();
    const int b = unit % in.blocks();
    for (int y = 0; y < out.height; ++y) {
      const uint16_t* from =
          in.at(n, b) + static_cast<ptrdiff_t>(in.pixel(2 * y, 0)) * kTileChannels;
      uint16_t* to = out.at(n, b) + static_cast<ptrdiff_t>(out.pixel(y, 0)) * kTileChannels;
      for (int x = 0; x < out.width; ++x, from += 2 * kTileChannels, to += kTileChannels)
        for (int c = 0; c < kTileChannels; ++c) {
          const auto at = [&](ptrdiff_t i) { return from_bfloat16(from[i + c]); };
          to[c] = static_cast<uint16_t>(
              std::bit_cast<uint32_t>(larger(larger(at(0), at(kTileChannels)),
                                             larger(at(below), at(below + kTileChannels)))) >>
              16U);
        }
    }
  }
}

}  // namespace graft::engine
