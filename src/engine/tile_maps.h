// Activations in 16-bit numbers, as the products of tiles read them.
#pragma once

#include <cstdint>

#include "engine/buffer.h"
#include "engine/team.h"
#include "engine/tile_kernels.h"
#include "graft/network.h"

namespace graft::engine {

/// What halves need to know of an image at some layer.
struct ImageScale {
  float scale;  ///< stored numbers over the activations, a power of two
  float most;   ///< at least the largest absolute activation; written by all members of a team
};

/// The power of two by which numbers up to `most` fill the range of halves.
float scale_for(float most);
/// Raises `most`, beside others who do.
void raise_most(ImageScale& image, float most);

/// [n][C/32][pixels][32], rounded up to whole blocks of channels with zeros. A plane has a row of
/// zeros above and below and one column of zeros, which ends a row and begins the next: pixel (y,
/// x) is number (y + 1) · (width + 1) + x + 1. So a tap of a run of pixels is the same run
/// elsewhere. Whoever computes pixels in runs across that column zeroes it again; nothing else
/// writes there. Low halves lie in the same way behind all of that.
struct TileMaps {
  int channels = 0;
  int height = 0;
  int width = 0;
  TileFormat format = TileFormat::bf16;
  size_t low = 0;  ///< elements from a number to its low half; 0 for bfloat16
  uint16_t* data = nullptr;
  ImageScale* scales = nullptr;  ///< of each image; null for bfloat16

  /// Room for `count` images, to be put at `data`: see elements().
  TileMaps(const Shape& shape, TileFormat number, int count)
      : channels(static_cast<int>(shape.channels)),
        height(static_cast<int>(shape.height)),
        width(static_cast<int>(shape.width)),
        format(number) {
    // The last tile of a plane may read and round past its end: of the last plane, into this room.
    const size_t slack = static_cast<size_t>(2 * stride() + 2 + 2 * kTilePixels) * kTileChannels;
    part_ = image() * count + slack;
    // Parts lie a whole number of pages and three cache lines apart, not in the same cache sets.
    if (format == TileFormat::halves) low = (part_ + 2047) / 2048 * 2048 + 96;
  }

  [[nodiscard]] int blocks() const { return (channels + kTileChannels - 1) / kTileChannels; }
  /// Pixels from one row to the next.
  [[nodiscard]] int stride() const { return width + 1; }
  /// Elements of a plane; an odd number of cache lines, or the planes of a pixel would all fall
  /// into a few cache sets.
  [[nodiscard]] size_t plane() const {
    return (static_cast<size_t>((height + 2) * stride() + 1) | 1U) * kTileChannels;
  }
  /// Elements of one image, of one part.
  [[nodiscard]] size_t image() const { return plane() * blocks(); }
  /// Elements of all images and parts.
  [[nodiscard]] size_t elements() const { return low + part_; }
  [[nodiscard]] uint16_t* at(int n, int b) const { return data + n * image() + b * plane(); }
  [[nodiscard]] int pixel(int y, int x) const { return (y + 1) * stride() + x + 1; }

 private:
  size_t part_;
};

// Steps, as those of maps.h.

/// Measures images of `elements` floats each and chooses their scales.
void measure(Team::Member& member, const float* plain, int64_t elements, ImageScale* scales,
             int first, int count);
/// From plain float32 (N, C, H, W) to maps, after measure() for halves; and back.
void to_tile_maps(Team::Member& member, const float* plain, const TileMaps& maps, int first,
                  int count);
void tile_maps_to_plain(Team::Member& member, const TileMaps& maps, float* plain, int first,
                        int count);
/// 2×2 max-pooling where no TileConvolution precedes it.
void pool(Team::Member& member, const TileMaps& in, const TileMaps& out, int first, int count);

}  // namespace graft::engine
