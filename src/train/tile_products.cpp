#include "train/tile_products.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstring>

#include "engine/tile_maps.h"

namespace graft {
namespace {

using engine::kTapWeights;
using engine::kTilePixels;
using engine::TileKernels;
using torch::Tensor;

constexpr int64_t kSide = ProductPiece::kSide;
constexpr int64_t kTile = kSide * kSide;  // of what two tiles hold, of either operand
// Rows of `a` that a thread packs at a time, and blocks of 32 of its columns: 256 KB, of the
// second-level cache, and from runs of 1 KB and more, whichever way `a` lies. Not measured.
constexpr int64_t kRowsAtOnce = 256;
constexpr int64_t kBlocksAtOnce = 16;
// Panels of `b` whose sums are kept meanwhile: 256 rows × 256 columns, 256 KB. Not measured.
constexpr int64_t kPanelsAtOnce = 8;

int64_t parts_of(int64_t count, int64_t each) { return (count + each - 1) / each; }

/// Room for 16-bit numbers; LibTorch's memory begins at a cache line.
struct Packed {
  Tensor memory;
  uint16_t* data;

  explicit Packed(int64_t elements, bool zeroed = false)
      : memory(zeroed ? torch::zeros({elements}, torch::kShort)
                      : torch::empty({elements}, torch::kShort)),
        data(reinterpret_cast<uint16_t*>(memory.data_ptr<int16_t>())) {}
};

/// A thread's use of tiles.
class Tiles {
 public:
  explicit Tiles(const TileKernels& k) : k_(k) { k_.enter(kTilePixels); }
  ~Tiles() { k_.leave(); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;

  /// sums[32][32] = bias + rows · weights: `rows` are 32 of 32 numbers, `blocks` of them `apart`
  /// elements from each other, weights one after the other.
  void multiply(const uint16_t* rows, int64_t apart, const uint16_t* weights, int64_t blocks,
                const float* bias, float* sums) const {
    k_.multiply({{rows, rows + ptrdiff_t{kTilePixels} * kSide},
                 0,
                 static_cast<size_t>(apart),
                 0,
                 kTilePixels,
                 weights,
                 static_cast<int>(blocks),
                 bias,
                 {sums, sums + engine::kTileSums},
                 nullptr,
                 0,
                 {}});
  }

 private:
  const TileKernels& k_;
};

/// Rounds 32 numbers, those from `count` on being zero.
void round_row(const TileKernels& k, const float* from, int64_t stride, int64_t count,
               uint16_t* to) {
  alignas(64) float row[kSide];
  if (stride == 1 && count == kSide) {
    std::memcpy(row, from, sizeof row);
  } else {
    for (int64_t i = 0; i < kSide; ++i) row[i] = i < count ? from[i * stride] : 0.0F;
  }
  k.round(row, 1, {false, 1, 0, nullptr}, to);
}

/// A matrix in memory, of which some rows and columns from its first on exist.
struct Block {
  const float* from;
  int64_t row, column;  // floats from one to the next
  int64_t rows, columns;
};

/// 32 rows of 32 numbers.
void pack_rows(const TileKernels& k, const Block& block, uint16_t* to) {
  if (block.row != 1 || block.column == 1) {
    for (int64_t r = 0; r < kSide; ++r)
      round_row(k, block.from + r * block.row, block.column, r < block.rows ? block.columns : 0,
                to + r * kSide);
    return;
  }
  // Numbers of a column lie beside each other in memory.
  uint16_t column[kSide];
  for (int64_t c = 0; c < kSide; ++c) {
    round_row(k, block.from + c * block.column, 1, c < block.columns ? block.rows : 0, column);
    for (int64_t r = 0; r < kSide; ++r) to[r * kSide + c] = column[r];
  }
}

/// 32 × 32 numbers as weights: [2 tiles][16 pairs of rows][16 columns][2].
void pack_weights(const TileKernels& k, const Block& block, uint16_t* to) {
  uint16_t packed[2][kSide];
  if (block.row != 1 || block.column == 1) {
    for (int64_t pair = 0; pair < kSide / 2; ++pair) {
      for (int64_t odd = 0; odd < 2; ++odd)
        round_row(k, block.from + (2 * pair + odd) * block.row, block.column,
                  2 * pair + odd < block.rows ? block.columns : 0, packed[odd]);
      for (int64_t c = 0; c < kSide; ++c)
        for (int64_t odd = 0; odd < 2; ++odd)
          to[c / 16 * (kTile / 2) + pair * 32 + c % 16 * 2 + odd] = packed[odd][c];
    }
    return;
  }
  for (int64_t c = 0; c < kSide; ++c) {
    round_row(k, block.from + c * block.column, 1, c < block.columns ? block.rows : 0, packed[0]);
    for (int64_t pair = 0; pair < kSide / 2; ++pair)
      std::memcpy(to + c / 16 * (kTile / 2) + pair * 32 + c % 16 * 2, packed[0] + 2 * pair,
                  2 * sizeof(uint16_t));
  }
}

Block block_of(const Tensor& matrix, int64_t row, int64_t column) {
  return {matrix.data_ptr<float>() + row * matrix.stride(0) + column * matrix.stride(1),
          matrix.stride(0), matrix.stride(1), std::min(kSide, matrix.size(0) - row),
          std::min(kSide, matrix.size(1) - column)};
}

constexpr float kNoBias[kSide] = {};

}  // namespace

void for_products(const TileKernels& k, const Tensor& a, const Tensor& b,
                  const std::function<void(const ProductPiece&)>& body) {
  const int64_t rows = a.size(0);
  const int64_t columns = b.size(1);
  const int64_t blocks = parts_of(a.size(1), kSide);
  const int64_t panels = parts_of(columns, kSide);
  if (rows == 0 || columns == 0) return;
  const Packed weights(panels * blocks * kTile);
  at::parallel_for(0, panels * blocks, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      pack_weights(k, block_of(b, i % blocks * kSide, i / blocks * kSide),
                   weights.data + i * kTile);
  });
  const int64_t share = parts_of(parts_of(rows, at::get_num_threads()), kSide) * kSide;
  const int64_t at_once = std::min(kRowsAtOnce, share);
  at::parallel_for(0, parts_of(rows, at_once), 1, [&](int64_t begin, int64_t end) {
    const Tiles tiles(k);
    const int64_t groups = at_once / kSide;
    const int64_t depth = std::min(kBlocksAtOnce, blocks);
    const Packed packed(groups * depth * kTile);
    const Tensor sums = torch::empty({groups * kPanelsAtOnce * kTile});
    float* const all = sums.data_ptr<float>();
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t top = unit * at_once;
      const int64_t bottom = std::min(top + at_once, rows);
      for (int64_t panel = 0; panel < panels; panel += kPanelsAtOnce) {
        const int64_t width = std::min(kPanelsAtOnce, panels - panel);
        for (int64_t first = 0; first < blocks; first += depth) {
          const int64_t count = std::min(depth, blocks - first);
          for (int64_t row = top; row < bottom; row += kSide) {
            uint16_t* const from = packed.data + (row - top) / kSide * depth * kTile;
            if (panel == 0 || depth < blocks)
              for (int64_t i = 0; i < count; ++i)
                pack_rows(k, block_of(a, row, (first + i) * kSide), from + i * kTile);
            for (int64_t p = 0; p < width; ++p) {
              float* const to = all + ((row - top) / kSide * kPanelsAtOnce + p) * kTile;
              alignas(64) float part[kTile];
              tiles.multiply(from, kTile, weights.data + ((panel + p) * blocks + first) * kTile,
                             count, kNoBias, first == 0 ? to : part);
              if (first > 0)
                for (int64_t i = 0; i < kTile; ++i) to[i] += part[i];
            }
          }
        }
        for (int64_t row = top; row < bottom; row += kSide)
          body({row, std::min(kSide, bottom - row), panel * kSide,
                std::min(width * kSide, columns - panel * kSide),
                all + (row - top) / kSide * kPanelsAtOnce * kTile});
      }
    }
  });
}

Tensor tile_product(const TileKernels& k, const Tensor& a, const Tensor& b) {
  Tensor out = torch::empty({a.size(0), b.size(1)});
  float* const to = out.data_ptr<float>();
  for_products(k, a, b, [&](const ProductPiece& piece) {
    for (int64_t r = 0; r < piece.rows; ++r)
      for (int64_t c = 0; c < piece.columns; c += kSide)
        std::copy_n(piece.at(r, c / kSide), std::min(kSide, piece.columns - c),
                    to + (piece.row + r) * out.size(1) + piece.column + c);
  });
  return out;
}

Tensor TileProducts3x3::convolve(const Tensor& in, const Tensor& taps, const float* bias) const {
  const int64_t images = in.size(0);
  const int64_t channels = in.size(1);
  const int64_t height = in.size(2);
  const int64_t width = in.size(3);
  const int64_t outputs = taps.size(2);
  engine::TileMaps maps({channels, height, width, false}, engine::TileFormat::bf16,
                        static_cast<int>(images));
  const Packed pixels(static_cast<int64_t>(maps.elements()), /*zeroed=*/true);
  maps.data = pixels.data;
  const int64_t blocks = maps.blocks();
  const float* from = in.data_ptr<float>();
  at::parallel_for(0, images * height, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      for (int64_t x = 0; x < width; ++x)
        for (int64_t b = 0; b < blocks; ++b)
          round_row(k_, from + (row * width + x) * channels + b * kSide, 1,
                    std::min(kSide, channels - b * kSide),
                    maps.at(static_cast<int>(row / height), static_cast<int>(b)) +
                        maps.pixel(static_cast<int>(row % height), static_cast<int>(x)) * kSide);
  });
  const int64_t panels = parts_of(outputs, kSide);
  const Packed weights(panels * blocks * 9 * kTapWeights);
  at::parallel_for(0, panels * blocks * 9, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      pack_weights(k_, block_of(taps[i % 9], i / 9 % blocks * kSide, i / 9 / blocks * kSide),
                   weights.data + i * kTapWeights);
  });
  Tensor out =
      torch::empty({images, outputs, height, width},
                   torch::TensorOptions().memory_format(torch::MemoryFormat::ChannelsLast));
  float* const to = out.data_ptr<float>();
  const int64_t stride = maps.stride();
  // A unit is a panel of outputs for some images: its weights stay in the second-level cache.
  const int64_t parts = std::min(images, parts_of(2 * int64_t{at::get_num_threads()}, panels));
  at::parallel_for(0, panels * parts, 1, [&](int64_t begin, int64_t end) {
    const Tiles tiles(k_);
    alignas(64) float sums[kTile];
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t panel = unit / parts;
      const int64_t real = std::min(kSide, outputs - panel * kSide);
      alignas(64) float shift[kSide] = {};
      if (bias != nullptr) std::copy_n(bias + panel * kSide, real, shift);
      for (int64_t n = unit % parts * images / parts; n < (unit % parts + 1) * images / parts;
           ++n) {
        // Runs of pixels across the column of zeros, which is computed and not kept.
        const int64_t last = maps.pixel(static_cast<int>(height) - 1, static_cast<int>(width));
        for (int64_t at = maps.pixel(0, 0); at < last; at += kSide) {
          const uint16_t* first = maps.at(static_cast<int>(n), 0) + (at - stride - 1) * kSide;
          k_.convolve({{first, first + ptrdiff_t{kTilePixels} * kSide},
                       0,
                       maps.plane(),
                       static_cast<size_t>(stride) * kSide,
                       kTilePixels,
                       weights.data + panel * blocks * 9 * kTapWeights,
                       static_cast<int>(blocks),
                       shift,
                       {sums, sums + engine::kTileSums},
                       nullptr,
                       0,
                       {}});
          for (int64_t i = at; i < std::min(at + kSide, last); ++i)
            if (i % stride != 0)
              std::copy_n(sums + (i - at) * kSide, real,
                          to + ((n * height + i / stride - 1) * width + i % stride - 1) * outputs +
                              panel * kSide);
        }
      }
    }
  });
  return out;
}

/// Sums over images and pixels. Numbers of 32 images lie beside each other, so that a tap is the
/// same pixels elsewhere, and a pair that tiles multiply is of two images.
Tensor TileProducts3x3::weight_gradient(const Tensor& in, const Tensor& gradient) const {
  const int64_t images = in.size(0);
  const int64_t channels = in.size(1);
  const int64_t height = in.size(2);
  const int64_t width = in.size(3);
  const int64_t outputs = gradient.size(1);
  const int64_t pixels = height * width;
  // Rows end with a column of zeros, which begins the next; one row above and one below.
  const int64_t stride = width + 1;
  const int64_t places = (height + 2) * stride + 1;
  const int64_t sums = height * stride - 1;  // without the last row's zero
  const int64_t blocks = parts_of(channels, kSide);
  const int64_t panels = parts_of(outputs, kSide);
  const Packed left(places * blocks * kTile, /*zeroed=*/true);  // [place][channel][image]
  const Packed right(panels * sums * kTile, /*zeroed=*/true);   // [panel][pixel] as weights
  Tensor taps = torch::zeros({9, channels, outputs});
  const float* const x = in.data_ptr<float>();
  const float* const g = gradient.data_ptr<float>();
  float* const to = taps.data_ptr<float>();
  for (int64_t first = 0; first < images; first += kSide) {
    const int64_t count = std::min(kSide, images - first);
    at::parallel_for(0, pixels, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t place = i / width * stride + i % width;
        for (int64_t b = 0; b < blocks; ++b)
          pack_rows(k_,
                    {x + (first * pixels + i) * channels + b * kSide, 1, pixels * channels,
                     std::min(kSide, channels - b * kSide), count},
                    left.data + ((place + stride + 1) * blocks + b) * kTile);
        for (int64_t p = 0; p < panels; ++p)
          pack_weights(k_,
                       {g + (first * pixels + i) * outputs + p * kSide, pixels * outputs, 1, count,
                        std::min(kSide, outputs - p * kSide)},
                       right.data + (p * sums + place) * kTile);
      }
    });
    at::parallel_for(0, panels * blocks, 1, [&](int64_t begin, int64_t end) {
      const Tiles tiles(k_);
      alignas(64) float part[kTile];
      for (int64_t unit = begin; unit < end; ++unit) {
        const int64_t panel = unit / blocks;
        const int64_t block = unit % blocks;
        const int64_t real = std::min(kSide, outputs - panel * kSide);
        for (int64_t tap = 0; tap < 9; ++tap) {
          tiles.multiply(left.data + ((tap / 3 * stride + tap % 3) * blocks + block) * kTile,
                         blocks * kTile, right.data + panel * sums * kTile, sums, kNoBias, part);
          for (int64_t r = 0; r < std::min(kSide, channels - block * kSide); ++r) {
            float* row = to + (tap * channels + block * kSide + r) * outputs + panel * kSide;
            for (int64_t o = 0; o < real; ++o) row[o] += part[r * kSide + o];
          }
        }
      }
    });
  }
  return taps.view({3, 3, channels, outputs}).permute({3, 2, 0, 1}).contiguous();
}

}  // namespace graft
