#include "engine/convolution.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace graft::engine {
namespace {

int round_up(int value, int step) { return (value + step - 1) / step * step; }

/// Frequencies lie an odd number of cache lines apart (mod 16 lines), or the stores of a transform
/// would all fall into one cache set.
size_t frequency_stride(size_t floats) {
  size_t lines = (floats + 15) / 16;
  while (lines % 16 != 1) ++lines;
  return lines * 16;
}

/// G of F(m×m, 3×3) for the points of winograd-inl.h; weights are transformed in double.
constexpr std::array<std::array<double, 3>, 6> kG4 = {{{1. / 4, 0, 0},
                                                       {-1. / 6, -1. / 6, -1. / 6},
                                                       {-1. / 6, 1. / 6, -1. / 6},
                                                       {1. / 24, 1. / 12, 1. / 6},
                                                       {1. / 24, -1. / 12, 1. / 6},
                                                       {0, 0, 1}}};
constexpr std::array<std::array<double, 3>, 8> kG6 = {{{1, 0, 0},
                                                       {-2. / 9, -2. / 9, -2. / 9},
                                                       {-2. / 9, 2. / 9, -2. / 9},
                                                       {1. / 90, 1. / 45, 2. / 45},
                                                       {1. / 90, -1. / 45, 2. / 45},
                                                       {1. / 45, 1. / 90, 1. / 180},
                                                       {1. / 45, -1. / 90, 1. / 180},
                                                       {0, 0, 1}}};

/// u = G g Gᵀ, frequency-major.
void transform_weights(int m, const float* g, float* u) {
  const int n = m + 2;
  const auto row = [&](int i) -> const std::array<double, 3>& { return m == 4 ? kG4[i] : kG6[i]; };
  double t[8][3];
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < 3; ++j)
      t[i][j] = row(i)[0] * g[j] + row(i)[1] * g[3 + j] + row(i)[2] * g[6 + j];
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < n; ++j)
      u[i * n + j] =
          static_cast<float>(t[i][0] * row(j)[0] + t[i][1] * row(j)[1] + t[i][2] * row(j)[2]);
}

/// Estimated seconds of one core for a layer with F(m). The constants were measured on a Zen 3 core
/// (bench/kernels_bench); they are constants so that the choice depends on nothing else.
double estimate(int m, double channels, double outputs, double height, double width,
                double images) {
  constexpr double kFlops = 95e9;
  constexpr double kWeightBytes = 40e9;  // a second, mostly hidden behind products by prefetching
  const double input_tile = (m == 4 ? 32e-9 : 74e-9) / 8;
  const double output_tile = (m == 4 ? 21e-9 : 50e-9) / 8;
  const double frequencies = (m + 2) * (m + 2);
  const double tiles =
      images * static_cast<int>((height + m - 1) / m) * static_cast<int>((width + m - 1) / m);
  const double rounded = static_cast<int>((tiles + kTiles - 1) / kTiles) * kTiles;
  return 2 * rounded * frequencies * channels * outputs / kFlops +
         4 * frequencies * channels * outputs / kWeightBytes +
         tiles * (channels * input_tile + outputs * output_tile);
}

}  // namespace

ConvolutionPlan plan_convolution(int64_t channels, int64_t outputs, int64_t height, int64_t width,
                                 bool single, int forced_tile) {
  ConvolutionPlan plan;
  const double images = single ? 1 : 8;
  const auto cost = [&](int m) {
    return estimate(m, static_cast<double>(channels), static_cast<double>(outputs),
                    static_cast<double>(height), static_cast<double>(width), images);
  };
  plan.tile = cost(4) <= cost(6) ? 4 : 6;
  if (forced_tile != 0) plan.tile = forced_tile;

  // Scheduling. A private block of transformed input is to stay in the second-level cache (half a
  // megabyte), products beside it; where a block of 12 tiles passes that by far, the team shares
  // one in the third-level cache and divides the outputs. The optimum is flat
  // (docs/performance.md).
  constexpr int kPrivateFloats = 100'000;
  const int per_tile = static_cast<int>(channels) * (plan.tile + 2) * (plan.tile + 2);
  plan.shared = per_tile * 12 > 2 * kPrivateFloats;
  if (plan.shared) {
    plan.tiles = plan.tile == 6 ? 36 : 66;
    plan.outputs = plan.tile == 6 ? 32 : 16;
  } else {
    plan.tiles = std::clamp(kPrivateFloats / per_tile / kTiles * kTiles, 18, 48);
    plan.outputs = channels <= 64 ? 16 : 32;
  }
  return plan;
}

/// A block of consecutive tiles, numbered over images, rows and columns.
struct Convolution::Block {
  struct Tile {
    int n, y, x;
  };
  const Maps& in;
  const Maps& out;
  std::vector<Tile>& tiles;
  int count;

  [[nodiscard]] int groups() const { return (count + kTiles - 1) / kTiles; }
};

Convolution::Convolution(const Shape& in, const Shape& out, const ConvolutionPlan& plan,
                         const FoldedLayer& weights, bool pool, Team& team)
    : channels_(round_up(static_cast<int>(in.channels), kBlock)),
      outputs_(round_up(static_cast<int>(out.channels), kOutputs)),
      height_(static_cast<int>(in.height)),
      width_(static_cast<int>(in.width)),
      plan_(plan),
      pool_(pool),
      relu_(weights.relu) {
  plan_.outputs = std::min(plan_.outputs, outputs_);
  input_stride_ = frequency_stride(static_cast<size_t>(plan_.tiles) * channels_);
  product_stride_ = frequency_stride(static_cast<size_t>(plan_.tiles) * plan_.outputs);
  bias_ = Buffer(static_cast<size_t>(outputs_));
  std::copy(weights.bias.begin(), weights.bias.end(), bias_.data());
  pack(weights, team);
}

void Convolution::pack(const FoldedLayer& weights, Team& team) {
  const int n = plan_.tile + 2;
  const int frequencies = n * n;
  weights_ = Buffer(static_cast<size_t>(frequencies) * channels_ * outputs_);
  const auto real_outputs = static_cast<int>(weights.bias.size());
  const auto real_channels = static_cast<int>(weights.weight.size() / weights.bias.size() / 9);
  // In the order in which multiply_chunk reads: chunk, frequency, depth, panel of 16, channel, 16.
  team.run([&](Team::Member& member) {
    float u[64];
    for (int k = member.take(); k < real_outputs; k = member.take()) {
      const int chunk = k / plan_.outputs;
      const int width = std::min(plan_.outputs, outputs_ - chunk * plan_.outputs);
      const int panel = k % plan_.outputs / kOutputs;
      float* base =
          weights_.data() + static_cast<size_t>(chunk) * plan_.outputs * frequencies * channels_;
      for (int c = 0; c < real_channels; ++c) {
        transform_weights(plan_.tile,
                          &weights.weight[(static_cast<size_t>(k) * real_channels + c) * 9], u);
        const int first = c / plan_.depth * plan_.depth;
        const int depth = std::min(plan_.depth, channels_ - first);
        float* to = base + static_cast<size_t>(first) * width +
                    (static_cast<size_t>(panel) * depth + c - first) * kOutputs + k % kOutputs;
        for (int f = 0; f < frequencies; ++f) to[static_cast<size_t>(f) * channels_ * width] = u[f];
      }
    }
  });
}

std::string Convolution::description() const {
  return fmt::format("F({0}x{0}) {1} {2}x{3}", plan_.tile, plan_.shared ? "shared" : "private",
                     plan_.tiles, plan_.outputs);
}

size_t Convolution::private_scratch() const {
  const size_t frequencies = static_cast<size_t>(plan_.tile + 2) * (plan_.tile + 2);
  return frequencies * (product_stride_ + (plan_.shared ? 0 : input_stride_));
}

size_t Convolution::shared_scratch() const {
  const size_t frequencies = static_cast<size_t>(plan_.tile + 2) * (plan_.tile + 2);
  return plan_.shared ? frequencies * input_stride_ : 0;
}

void Convolution::transform_inputs(const Block& block, int tile_begin, int tile_end,
                                   int channel_begin, int channel_end, float* v) const {
  const Kernels& k = kernels();
  const int m = plan_.tile;
  const int blocks = channels_ / kBlock;
  const auto source = [&](int c, int i) {
    const Block::Tile& tile = block.tiles[i];
    return block.in.at(tile.n, c, tile.y * m, tile.x * m);
  };
  for (int c = channel_begin; c < channel_end; ++c)
    for (int i = tile_begin; i < tile_end; ++i) {
      // Two tiles ahead, in the next channel block at the end of the row of tiles.
      int ahead = i + 2;
      int ahead_c = c;
      if (ahead >= tile_end) {
        ahead = std::min(tile_begin + ahead - tile_end, tile_end - 1);
        ahead_c = std::min(c + 1, channel_end - 1);
      }
      float* to = v + (static_cast<size_t>(i / kTiles) * blocks + c) * (kTiles * kBlock) +
                  static_cast<size_t>(i % kTiles) * kBlock;
      k.transform_input(m, source(c, i), block.in.row(), to, input_stride_, source(ahead_c, ahead));
    }
}

void Convolution::multiply_chunk(const Block& block, int chunk, const float* v,
                                 float* products) const {
  const Kernels& k = kernels();
  const int frequencies = (plan_.tile + 2) * (plan_.tile + 2);
  const int width = std::min(plan_.outputs, outputs_ - chunk * plan_.outputs);
  const int groups = block.groups();
  // The next panel of weights is prefetched while this one is used, spread over the groups of
  // tiles.
  const int lines = groups >= 8 ? 1 : groups >= 4 ? 2 : groups >= 2 ? 4 : 8;
  const float* b =
      weights_.data() + static_cast<size_t>(chunk) * plan_.outputs * frequencies * channels_;
  for (int f = 0; f < frequencies; ++f) {
    const float* vf = v + f * input_stride_;
    float* pf = products + f * product_stride_;
    for (int first = 0; first < channels_; first += plan_.depth) {
      const int depth = std::min(plan_.depth, channels_ - first);
      for (int panel = 0; panel < width / kOutputs; ++panel) {
        const float* next = b + static_cast<size_t>(depth) * kOutputs;
        for (int i = 0; i < groups; ++i) {
          const int offset = i * lines * (depth / kBlock);  // in cache lines
          k.multiply(vf + (static_cast<size_t>(i) * channels_ + first) * kTiles, b,
                     pf + (static_cast<size_t>(panel) * groups + i) * (kTiles * kOutputs),
                     static_cast<size_t>(depth / kBlock), first > 0, next + offset * 16,
                     offset < depth ? lines : 0);
        }
        b = next;
      }
    }
  }
}

void Convolution::transform_outputs(const Block& block, int chunk, const float* products) const {
  const Kernels& kernel = kernels();
  const int m = plan_.tile;
  const int step = pool_ ? m / 2 : m;
  const int first = chunk * plan_.outputs;
  const int width = std::min(plan_.outputs, outputs_ - first);
  const int groups = block.groups();
  for (int panel = 0; panel < width / kOutputs; ++panel)
    for (int i = 0; i < block.count; ++i) {
      const Block::Tile& tile = block.tiles[i];
      const Block::Tile& ahead = block.tiles[std::min(i + 2, block.count - 1)];
      const float* p = products + (static_cast<size_t>(panel) * groups * kTiles + i) * kOutputs;
      for (int half = 0; half < 2; ++half) {
        const int channel = first + panel * kOutputs + half * kBlock;
        if (channel / kBlock >= block.out.blocks()) break;
        const float* next =
            block.out.at(ahead.n, channel / kBlock, ahead.y * step + 1, ahead.x * step + 1);
        for (int r = 0; r < step; ++r, next += block.out.row())
          for (int line = 0; line < step * kBlock; line += 16) __builtin_prefetch(next + line, 1);
        const OutputTile target{
            block.out.at(tile.n, channel / kBlock, tile.y * step + 1, tile.x * step + 1),
            block.out.row(), height_ - tile.y * m, width_ - tile.x * m};
        kernel.transform_output(m, p + half * kBlock, product_stride_, bias_.data() + channel,
                                relu_, pool_, target);
      }
    }
}

void Convolution::run(Team::Member& member, const Maps& in, const Maps& out, int first, int count,
                      float* private_scratch, float* shared_scratch) const {
  const int m = plan_.tile;
  const int down = (height_ + m - 1) / m;
  const int across = (width_ + m - 1) / m;
  const int total = count * down * across;
  const int blocks = (total + plan_.tiles - 1) / plan_.tiles;
  // Blocks of equal size: a small last one would leave the team waiting.
  const int size = std::min(plan_.tiles, round_up((total + blocks - 1) / blocks, kTiles));
  const int chunks = (outputs_ + plan_.outputs - 1) / plan_.outputs;
  const size_t frequencies = static_cast<size_t>(m + 2) * (m + 2);
  static thread_local std::vector<Block::Tile> tiles;
  Block block{in, out, tiles, 0};
  const auto enter = [&](int index) {
    const int begin = index * size;
    block.count = std::clamp(total - begin, 0, size);
    tiles.resize(static_cast<size_t>(block.count));
    for (int i = 0; i < block.count; ++i) {
      const int t = begin + i;
      tiles[i] = {first + t / (down * across), t / across % down, t % across};
    }
  };
  if (!plan_.shared) {
    float* products = private_scratch + frequencies * input_stride_;
    for (int b = member.take(); b < blocks; b = member.take()) {
      enter(b);
      transform_inputs(block, 0, block.count, 0, channels_ / kBlock, private_scratch);
      for (int chunk = 0; chunk < chunks; ++chunk) {
        multiply_chunk(block, chunk, private_scratch, products);
        transform_outputs(block, chunk, products);
      }
    }
    return;
  }
  constexpr int kTilesAtOnce = 12;
  constexpr int kBlocksAtOnce = 4;
  for (int b = 0; b < blocks; ++b) {
    if (b > 0) member.next_region();
    enter(b);
    const int rows = (block.count + kTilesAtOnce - 1) / kTilesAtOnce;
    const int columns = (channels_ / kBlock + kBlocksAtOnce - 1) / kBlocksAtOnce;
    for (int unit = member.take(); unit < rows * columns; unit = member.take()) {
      const int tile = unit % rows * kTilesAtOnce;
      const int channel = unit / rows * kBlocksAtOnce;
      transform_inputs(block, tile, std::min(tile + kTilesAtOnce, block.count), channel,
                       std::min(channel + kBlocksAtOnce, channels_ / kBlock), shared_scratch);
    }
    member.next_region();
    for (int chunk = member.take(); chunk < chunks; chunk = member.take()) {
      multiply_chunk(block, chunk, shared_scratch, private_scratch);
      transform_outputs(block, chunk, private_scratch);
    }
  }
}

FirstConvolution::FirstConvolution(const Shape& in, const FoldedLayer& weights)
    : channels_(static_cast<int>(in.channels)),
      height_(static_cast<int>(in.height)),
      width_(static_cast<int>(in.width)),
      outputs_(round_up(static_cast<int>(weights.bias.size()), kOutputs)),
      relu_(weights.relu) {
  weights_ = Buffer(static_cast<size_t>(outputs_) * channels_ * 9);
  bias_ = Buffer(static_cast<size_t>(outputs_));
  std::copy(weights.bias.begin(), weights.bias.end(), bias_.data());
  const int taps = channels_ * 9;
  for (int k = 0; k < static_cast<int>(weights.bias.size()); ++k)
    for (int t = 0; t < taps; ++t)
      weights_.data()[(static_cast<size_t>(k / kOutputs) * taps + t) * kOutputs + k % kOutputs] =
          weights.weight[static_cast<size_t>(k) * taps + t];
}

size_t FirstConvolution::padded_image() const {
  // A border of one pixel, and whole groups of six.
  return static_cast<size_t>(channels_) * (height_ + 2) * (round_up(width_, kTiles) + 2);
}

void FirstConvolution::pad(Team::Member& member, const float* in, float* padded, int count) const {
  const int columns = round_up(width_, kTiles) + 2;
  for (int plane = member.take(); plane < count * channels_; plane = member.take()) {
    const float* from = in + static_cast<size_t>(plane) * height_ * width_;
    float* to = padded + static_cast<size_t>(plane) * (height_ + 2) * columns + columns + 1;
    for (int y = 0; y < height_; ++y, from += width_, to += columns)
      std::memcpy(to, from, sizeof(float) * width_);
  }
}

void FirstConvolution::run(Team::Member& member, const float* padded, const Maps& out, int first,
                           int count) const {
  const Kernels& k = kernels();
  const int columns = round_up(width_, kTiles) + 2;
  const ptrdiff_t plane = static_cast<ptrdiff_t>(height_ + 2) * columns;
  const int whole = width_ / kTiles * kTiles;
  alignas(64) float tail[2][kTiles * kBlock];
  for (int unit = member.take(); unit < count * height_; unit = member.take()) {
    const int n = first + unit / height_;
    const int y = unit % height_;
    const float* in =
        padded + static_cast<size_t>(n) * padded_image() + static_cast<size_t>(y) * columns;
    for (int panel = 0; panel < outputs_ / kOutputs; ++panel) {
      const float* w = weights_.data() + static_cast<size_t>(panel) * channels_ * 9 * kOutputs;
      const float* bias = bias_.data() + panel * kOutputs;
      const bool both = 2 * panel + 1 < out.blocks();
      // The border of the output stays zero: the last, partial group goes through a buffer. So does
      // a second half that does not exist.
      for (int x = 0; x < width_; x += kTiles) {
        const bool direct = both && x < whole;
        const int run = direct ? whole - x : kTiles;
        float* out0 = out.at(n, 2 * panel, y + 1, x + 1);
        float* out1 = both ? out.at(n, 2 * panel + 1, y + 1, x + 1) : tail[1];
        k.convolve_row(in + x, channels_, plane, columns, w, bias, relu_, run,
                       direct ? out0 : tail[0], direct ? out1 : tail[1]);
        if (direct) {
          x += run - kTiles;
          continue;
        }
        const size_t bytes = sizeof(float) * kBlock * std::min(kTiles, width_ - x);
        std::memcpy(out0, tail[0], bytes);
        if (both) std::memcpy(out1, tail[1], bytes);
      }
    }
  }
}

}  // namespace graft::engine
