#include "engine/convolution.h"
#include "engine/winograd_weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace graft::engine {
namespace {

int round_up(int value, int step) { return (value + step - 1) / step * step; }

// Floats of transformed input in a private block: 400 KB of a second-level cache of 512 KB, the
// rest for products. Caches of 2 MB would take more; not measured.
constexpr int kPrivateFloats = 100'000;
// But at least four groups of six, which share each panel of weights while it is in the first-level
// cache (from 128 channels of 64 frequencies on, such a block is larger than that second-level
// cache), and at most eight, so that products of 16 outputs and 64 frequencies (197 KB) stay beside
// a block of few channels. Not measured by a bench.
constexpr int kMinPrivateTiles = 24;
constexpr int kMaxPrivateTiles = 48;
// A shared block reads all weights once (67 MB for 512 × 512 of 64 frequencies), so it is large: 64
// × 36 and 36 × 66 floats a channel are about the same, 4.7 MB at 512 channels, in the third-level
// cache. Both are multiples of six. Not measured by a bench.
constexpr int kSharedTiles64 = 36;  // of 64 frequencies
constexpr int kSharedTiles = 66;    // of fewer

/// Frequencies lie an odd number of cache lines apart, or the stores of a transform would all fall
/// into a few cache sets. Any odd number would do; 1 more than a multiple of 16 costs 15 at most.
size_t frequency_stride(size_t floats) {
  size_t lines = (floats + 15) / 16;
  while (lines % 16 != 1) ++lines;
  return lines * 16;
}

const std::array<double, 3>& g_row(int m, int i) {
  return m == 2 ? kG2.at(i) : m == 4 ? kG4.at(i) : kG6.at(i);
}

/// u = G g Gᵀ of `count` kernels side by side: g[9][count]; frequency f goes to u + f · stride.
void transform_weights(TileSize m, const double (*g)[kMostNR], int count, float* u, size_t stride) {
  double t[8][3][kMostNR];  // 8: the frequencies of a tile of six, the largest
  for (int i = 0; i < m.rows + 2; ++i) {
    const auto& row = g_row(m.rows, i);
    for (int j = 0; j < 3; ++j)
      for (int k = 0; k < count; ++k)
        t[i][j][k] = row[0] * g[j][k] + row[1] * g[3 + j][k] + row[2] * g[6 + j][k];
  }
  for (int i = 0; i < m.rows + 2; ++i)
    for (int j = 0; j < m.columns + 2; ++j, u += stride) {
      const auto& row = g_row(m.columns, j);
      for (int k = 0; k < count; ++k)
        u[k] = static_cast<float>(t[i][0][k] * row[0] + t[i][1][k] * row[1] + t[i][2][k] * row[2]);
    }
}

}  // namespace

/// Consecutive tiles of a part, numbered over images, rows and columns.
struct Convolution::Block {
  /// Image, the output pixel at its upper left, and the row of the grid where its band begins.
  struct Tile {
    int n, y, x, band;
  };
  const Part& part;
  const Maps& in;
  const Maps& out;
  const std::vector<Tile>& tiles;
  int count;

  [[nodiscard]] int groups(int group) const { return (count + group - 1) / group; }
};

int Convolution::Part::block_for(int images, int threads, int group) const {
  const int total = images * down * across;
  const int blocks = round_up((total + block - 1) / block, threads);
  const int tiles = (total + blocks - 1) / blocks;
  // Products come in an even number of rows, of which whole groups are the most efficient.
  return threads > 1 ? round_up(tiles, 2) : std::min(block, round_up(tiles, group));
}

Convolution::Convolution(const Shape& in, const Shape& out, const ConvolutionPlan& plan,
                         const FoldedLayer& weights, bool pool, const FirstConvolution* first,
                         Team& team)
    : channels_(round_up(static_cast<int>(in.channels), k_->block)),
      outputs_(round_up(static_cast<int>(out.channels), k_->nr)),
      height_(static_cast<int>(in.height)),
      width_(static_cast<int>(in.width)),
      plan_(plan),
      pool_(pool),
      relu_(weights.relu),
      first_(first) {
  plan_.outputs = std::min(round_up(plan_.outputs, k_->nr), outputs_);
  bias_ = Buffer(static_cast<size_t>(outputs_));
  std::copy(weights.bias.begin(), weights.bias.end(), bias_.data());
  const TileAxis& r = plan_.rows;
  const TileAxis& c = plan_.columns;
  const int bottom = r.main * r.count;
  const int right = c.main * c.count;
  add_part({r.main, c.main}, 0, 0, r.count, c.count, weights, team);
  if (c.last > 0) add_part({r.main, c.last}, 0, right, r.count, 1, weights, team);
  if (r.last > 0) add_part({r.last, c.main}, bottom, 0, 1, c.count, weights, team);
  if (r.last > 0 && c.last > 0) add_part({r.last, c.last}, bottom, right, 1, 1, weights, team);
}

void Convolution::add_part(TileSize size, int y, int x, int down, int across,
                           const FoldedLayer& weights, Team& team) {
  if (down == 0 || across == 0) return;
  Part part{size, y, x, down, across, 0, 0, 0, {}};
  const int per_tile = channels_ * size.frequencies();
  const int tiles = plan_.shared
                        ? (size.frequencies() == 64 ? kSharedTiles64 : kSharedTiles)
                        : std::clamp(kPrivateFloats / per_tile, kMinPrivateTiles, kMaxPrivateTiles);
  part.block = tiles / k_->mr * k_->mr;
  part.input_stride = frequency_stride(static_cast<size_t>(part.block) * channels_);
  part.product_stride = frequency_stride(static_cast<size_t>(part.block) * plan_.outputs);
  pack(part, weights, team);
  parts_.push_back(std::move(part));
}

void Convolution::pack(Part& part, const FoldedLayer& weights, Team& team) const {
  const int nr = k_->nr;
  const int frequencies = part.size.frequencies();
  part.weights = Buffer(static_cast<size_t>(frequencies) * channels_ * outputs_);
  const auto real_outputs = static_cast<int>(weights.bias.size());
  const auto real_channels = static_cast<int>(weights.weight.size() / weights.bias.size() / 9);
  // In the order in which multiply_chunk reads: chunk, frequency, depth, panel of 16, channel, 16.
  // Written in whole cache lines: a unit is one panel's share of some channels. 64 of them are 4 KB
  // in a row at each frequency; fewer would be more units to divide. Not measured.
  constexpr int kChannelsAtOnce = 64;
  const int spans = (real_channels + kChannelsAtOnce - 1) / kChannelsAtOnce;
  team.run([&](Team::Member& member) {
    for (int unit = member.take(); unit < outputs_ / nr * spans; unit = member.take()) {
      const int output = unit / spans * nr;
      const int chunk = output / plan_.outputs;
      const int width = std::min(plan_.outputs, outputs_ - chunk * plan_.outputs);
      const int panel = output % plan_.outputs / nr;
      float* base = part.weights.data() +
                    static_cast<size_t>(chunk) * plan_.outputs * frequencies * channels_;
      const int begin = unit % spans * kChannelsAtOnce;
      for (int c = begin; c < std::min(begin + kChannelsAtOnce, real_channels); ++c) {
        double g[9][kMostNR] = {};
        for (int k = 0; k < std::min(nr, real_outputs - output); ++k)
          for (int tap = 0; tap < 9; ++tap)
            g[tap][k] =
                weights.weight[(static_cast<size_t>(output + k) * real_channels + c) * 9 + tap];
        const int first = c / plan_.depth * plan_.depth;
        const int depth = std::min(plan_.depth, channels_ - first);
        transform_weights(part.size, g, nr,
                          base + static_cast<size_t>(first) * width +
                              (static_cast<size_t>(panel) * depth + c - first) * nr,
                          static_cast<size_t>(channels_) * width);
      }
    }
  });
}

std::string Convolution::description() const {
  return fmt::format("{}{} {} {}x{}", first_ != nullptr ? "direct + " : "", tile_name(plan_),
                     plan_.shared ? "shared" : "private", parts_.front().block, plan_.outputs);
}

size_t Convolution::packed() const {
  size_t floats = 0;
  for (const Part& part : parts_) floats += part.weights.size();
  return floats;
}

size_t Convolution::private_scratch() const {
  size_t most = 0;
  for (const Part& part : parts_) {
    size_t floats = part.products() + (plan_.shared ? 0 : part.inputs());
    if (first_ != nullptr)
      // A patch is at most two rows of tiles high, or as wide as all tiles of a block in one.
      floats += static_cast<size_t>(2 * k_->block) * (2 * part.size.rows + 2) *
                FirstConvolution::patch_stride(part.block * part.size.columns + 2);
    most = std::max(most, floats);
  }
  return most;
}

size_t Convolution::shared_scratch() const {
  if (!plan_.shared) return 0;
  size_t most = 0;
  for (const Part& part : parts_) most = std::max(most, part.inputs());
  return most;
}

Convolution::Block Convolution::enter(const Part& part, const Maps& in, const Maps& out, int first,
                                      int count, int size, int index) const {
  static thread_local std::vector<Block::Tile> tiles;
  const int grid = part.down * part.across;
  const int begin = index * size;
  const int in_block = std::clamp(count * grid - begin, 0, size);
  tiles.resize(static_cast<size_t>(in_block));
  // Where the first layer's pixels are computed for each block, two rows of tiles are walked
  // together, column by column: fewer of these pixels are shared with other blocks.
  const int band = first_ != nullptr ? 2 : 1;
  for (int i = 0; i < in_block; ++i) {
    const int t = (begin + i) % grid;
    const int top = t / (band * part.across) * band;
    const int height = std::min(band, part.down - top);
    const int within = t - top * part.across;
    tiles[i] = {first + (begin + i) / grid, part.y + (top + within % height) * part.size.rows,
                part.x + within / height * part.size.columns, top};
  }
  return {part, in, out, tiles, in_block};
}

void Convolution::transform_inputs(const Block& block, int tile_begin, int tile_end,
                                   int channel_begin, int channel_end, float* v) const {
  const Kernels& k = *k_;
  const int blocks = channels_ / k.block;
  const auto source = [&](int c, int i) {
    const Block::Tile& tile = block.tiles[i];
    return block.in.at(tile.n, c, tile.y, tile.x);
  };
  for (int c = channel_begin; c < channel_end; ++c)
    for (int i = tile_begin; i < tile_end; ++i) {
      // Two tiles ahead, in the next channel block at the end of the row of tiles: one transform is
      // shorter than the way to memory. Two were not measured against more.
      int ahead = i + 2;
      int ahead_c = c;
      if (ahead >= tile_end) {
        ahead = std::min(tile_begin + ahead - tile_end, tile_end - 1);
        ahead_c = std::min(c + 1, channel_end - 1);
      }
      float* to = v + (static_cast<size_t>(i / k.mr) * blocks + c) * (k.mr * k.block) +
                  static_cast<size_t>(i % k.mr) * k.block;
      k.transform_input(block.part.size, source(c, i), block.in.row(), to, block.part.input_stride,
                        source(ahead_c, ahead));
    }
}

void Convolution::transform_first(const Block& block, const float* padded, float* patch,
                                  float* v) const {
  const Kernels& k = *k_;
  const TileSize size = block.part.size;
  const int blocks = channels_ / k.block;
  // Runs of tiles in one band share their first layer's pixels.
  for (int begin = 0, end = 0; begin < block.count; begin = end) {
    const Block::Tile& from = block.tiles[begin];
    end = begin;
    int bottom = 0;
    while (end < block.count && block.tiles[end].n == from.n && block.tiles[end].band == from.band)
      bottom = std::max(bottom, block.tiles[end++].y);
    const int top = block.part.y + from.band * size.rows;
    const int rows = bottom + size.rows - top + 2;
    const int columns = block.tiles[end - 1].x - from.x + size.columns + 2;
    const int stride = FirstConvolution::patch_stride(columns);
    const float* image = padded + static_cast<size_t>(from.n) * first_->padded_image();
    for (int panel = 0; 2 * panel < blocks; ++panel) {
      first_->compute_patch(image, panel, top - 1, from.x - 1, rows, columns, stride, patch);
      for (int half = 0; half < std::min(2, blocks - 2 * panel); ++half)
        for (int i = begin; i < end; ++i) {
          const Block::Tile& tile = block.tiles[i];
          const int pixel = (half * rows + tile.y - top) * stride + tile.x - from.x;
          float* to =
              v + (static_cast<size_t>(i / k.mr) * blocks + 2 * panel + half) * (k.mr * k.block) +
              static_cast<size_t>(i % k.mr) * k.block;
          const float* d = patch + static_cast<ptrdiff_t>(pixel) * k.block;
          k.transform_input(size, d, static_cast<ptrdiff_t>(stride) * k.block, to,
                            block.part.input_stride, d);
        }
    }
  }
}

void Convolution::multiply_chunk(const Block& block, int chunk, const float* v,
                                 float* products) const {
  const Kernels& k = *k_;
  const Part& part = block.part;
  const int frequencies = part.size.frequencies();
  const int width = std::min(plan_.outputs, outputs_ - chunk * plan_.outputs);
  const int groups = block.groups(k_->mr);
  // The next panel of weights, is prefetched while this one
  // is used, spread over the groups of tiles.
  const int spread = groups >= 8 ? 8 : groups >= 4 ? 4 : groups >= 2 ? 2 : 1;
  const float* b =
      part.weights.data() + static_cast<size_t>(chunk) * plan_.outputs * frequencies * channels_;
  for (int f = 0; f < frequencies; ++f) {
    const float* vf = v + f * part.input_stride;
    float* pf = products + f * part.product_stride;
    for (int first = 0; first < channels_; first += plan_.depth) {
      const int depth = std::min(plan_.depth, channels_ - first);
      for (int panel = 0; panel < width / k.nr; ++panel) {
        const float* next = b + static_cast<size_t>(depth) * k.nr;
        // A second block of outputs that do not exist is not computed.
        const int left = block.out.blocks() * k.block - chunk * plan_.outputs - panel * k.nr;
        const int columns = std::min(k.nr, left);
        for (int i = 0; i < groups; ++i) {
          k.multiply(vf + (static_cast<size_t>(i) * channels_ + first) * k.mr, b,
                     pf + (static_cast<size_t>(panel) * groups + i) * (k.mr * k.nr),
                     std::min(k.mr, block.count - i * k.mr), columns,
                     static_cast<size_t>(depth / k.block), first > 0,
                     next + static_cast<size_t>(i) * depth * k.nr / spread,
                     i < spread ? spread : 0);
        }
        b = next;
      }
    }
  }
}

void Convolution::transform_outputs(const Block& block, int chunk, const float* products) const {
  const Kernels& k = *k_;
  const TileSize m = block.part.size;
  const int shrink = pool_ ? 2 : 1;
  const int first = chunk * plan_.outputs;
  const int width = std::min(plan_.outputs, outputs_ - first);
  const int groups = block.groups(k_->mr);
  for (int panel = 0; panel < width / k.nr; ++panel)
    for (int i = 0; i < block.count; ++i) {
      const Block::Tile& tile = block.tiles[i];
      const Block::Tile& ahead = block.tiles[std::min(i + 2, block.count - 1)];  // as above
      const float* p = products + (static_cast<size_t>(panel) * groups * k.mr + i) * k.nr;
      for (int half = 0; half < 2; ++half) {
        const int channel = first + panel * k.nr + half * k.block;
        if (channel / k.block >= block.out.blocks()) break;
        const auto at = [&](const Block::Tile& t) {
          return block.out.at(t.n, channel / k.block, t.y / shrink + 1, t.x / shrink + 1);
        };
        const float* next = at(ahead);
        for (int r = 0; r < m.rows / shrink; ++r, next += block.out.row())
          for (int line = 0; line < m.columns / shrink * k.block; line += 16)
            __builtin_prefetch(next + line, 1);
        const OutputTile target{at(tile), block.out.row(), height_ - tile.y, width_ - tile.x};
        k.transform_output(m, p + half * k.block, block.part.product_stride, bias_.data() + channel,
                           relu_, pool_, target);
      }
    }
}

void Convolution::run(Team::Member& member, const Maps& in, const float* padded, const Maps& out,
                      int first, int count, float* private_scratch, float* shared_scratch) const {
  const int blocks = channels_ / k_->block;
  const int chunks = (outputs_ + plan_.outputs - 1) / plan_.outputs;
  const auto blocks_of = [&](const Part& part, int size) {
    return (count * part.down * part.across + size - 1) / size;
  };
  if (!plan_.shared) {
    // Blocks are numbered over all parts, the large tiles first.
    int unit = member.take();
    int before = 0;
    for (const Part& part : parts_) {
      const int size = part.block_for(count, member.team_size(), k_->mr);
      const int units = blocks_of(part, size);
      float* products = private_scratch + part.inputs();
      for (; unit < before + units; unit = member.take()) {
        const Block block = enter(part, in, out, first, count, size, unit - before);
        if (first_ != nullptr)
          transform_first(block, padded, products + part.products(), private_scratch);
        else
          transform_inputs(block, 0, block.count, 0, blocks, private_scratch);
        for (int chunk = 0; chunk < chunks; ++chunk) {
          multiply_chunk(block, chunk, private_scratch, products);
          transform_outputs(block, chunk, products);
        }
      }
      before += units;
    }
    return;
  }
  // Units of the input transform: whole groups of tiles, so that no two members write to one panel,
  // of 32 channels, 768 bytes in a row at each frequency (of groups of six). Smaller ones would be
  // easier to divide, but write shorter rows. Not measured.
  constexpr int kTilesAtOnce = 12;
  const int blocks_at_once = 32 / k_->block;
  bool begun = false;
  for (const Part& part : parts_) {
    const int size = part.block_for(count, 1, k_->mr);  // each block is the whole team's
    for (int b = 0; b < blocks_of(part, size); ++b) {
      if (begun) member.next_region();
      begun = true;
      const Block block = enter(part, in, out, first, count, size, b);
      const int rows = std::max(1, (block.count + kTilesAtOnce - 1) / kTilesAtOnce);
      const int columns = (blocks + blocks_at_once - 1) / blocks_at_once;
      for (int unit = member.take(); unit < rows * columns; unit = member.take()) {
        const int tile = unit % rows * kTilesAtOnce;
        const int channel = unit / rows * blocks_at_once;
        transform_inputs(block, tile, std::min(tile + kTilesAtOnce, block.count), channel,
                         std::min(channel + blocks_at_once, blocks), shared_scratch);
      }
      member.next_region();
      for (int chunk = member.take(); chunk < chunks; chunk = member.take()) {
        multiply_chunk(block, chunk, shared_scratch, private_scratch);
        transform_outputs(block, chunk, private_scratch);
      }
    }
  }
}

}  // namespace graft::engine
