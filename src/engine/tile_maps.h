// Activations in bfloat16, as the products of tiles read them.
#pragma once

#include <cstdint>

#include "engine/buffer.h"
#include "engine/team.h"
#include "engine/tile_kernels.h"
#include "graft/network.h"

namespace graft::engine {

/// [n][C/32][pixels][32], rounded up to whole blocks of channels with zeros. A plane has a row of
/// zeros above and below and one column of zeros, which ends a row and begins the next: pixel (y,
/// x) is number (y + 1) · (width + 1) + x + 1. So a tap of a run of pixels is the same run
/// elsewhere. Whoever computes pixels in runs across that column zeroes it again; nothing else
/// writes there.
struct TileMaps {
  int channels = 0;
  int height = 0;
  int width = 0;
  uint16_t* data = nullptr;

  explicit TileMaps(const Shape& shape)
      : channels(static_cast<int>(shape.channels)),
        height(static_cast<int>(shape.height)),
        width(static_cast<int>(shape.width)) {}

  [[nodiscard]] int blocks() const { return (channels + kTileChannels - 1) / kTileChannels; }
  /// Pixels from one row to the next.
  [[nodiscard]] int stride() const { return width + 1; }
  /// Elements of a plane; an odd number of cache lines, or the planes of a pixel would all fall
  /// into a few cache sets.
  [[nodiscard]] size_t plane() const {
    return (static_cast<size_t>((height + 2) * stride() + 1) | 1U) * kTileChannels;
  }
  [[nodiscard]] size_t image() const { return plane() * blocks(); }
  /// Elements of `count` images. The last tile of a plane may read and round past its end: of the
  /// last plane, into this room.
  [[nodiscard]] size_t elements(int count) const {
    return image() * count +
           static_cast<size_t>(2 * stride() + 2 + 2 * kTilePixels) * kTileChannels;
  }
  [[nodiscard]] uint16_t* at(int n, int b) const { return data + n * image() + b * plane(); }
  [[nodiscard]] int pixel(int y, int x) const { return (y + 1) * stride() + x + 1; }
};

/// From plain float32 (N, C, H, W) to maps, and back. These are steps as those of maps.h.
void to_tile_maps(Team::Member& member, const float* plain, const TileMaps& maps, int first,
                  int count);
void tile_maps_to_plain(Team::Member& member, const TileMaps& maps, float* plain, int first,
                        int count);

/// 2×2 max-pooling where no TileConvolution precedes it.
void pool(Team::Member& member, const TileMaps& in, const TileMaps& out, int first, int count);

}  // namespace graft::engine
