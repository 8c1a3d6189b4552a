// Convolutions in bfloat16: every kind of tile that can run here, and AMX's emulation.
#include <array>
#include <cmath>
#include <iostream>
#include <limits>

#include "base/bfloat16.h"
#include "base/random.h"
#include "engine/engine.h"
#include "engine/reference.h"
#include "engine/tile_kernels.h"
#include "support.h"
#include "weights/load.h"

namespace graft {
namespace {

using engine::TileKernels;

std::vector<const TileKernels*> usable_tiles() {
  std::vector<const TileKernels*> usable = {engine::emulated_amx_kernels()};
  for (const auto& [kernels, name] :
       {std::pair{engine::amx_kernels(), "amx"}, {engine::avx512_bf16_kernels(), "avx512_bf16"}})
    if (kernels != nullptr) {
      usable.push_back(kernels);
    } else {
      std::cout << "SKIPPED: " << name << ": this processor, or its system, does not have it\n";
    }
  return usable;
}

engine::EngineOptions bf16(const TileKernels* tiles, int threads = 2, int max_batch = 4) {
  engine::EngineOptions options{threads, max_batch};
  options.precision = Precision::bf16;
  options.tiles = tiles;
  return options;
}

class Tiles : public ::testing::Test {
 protected:
  void SetUp() override {
    if (engine::tile_kernels() == nullptr) GTEST_SKIP() << "bf16 is refused on this processor";
  }
};

TEST(Bfloat16, RoundsAsProcessorsDo) {
  EXPECT_EQ(to_bfloat16(1.0F), 0x3f80);
  EXPECT_EQ(to_bfloat16(-2.5F), 0xc020);
  EXPECT_EQ(to_bfloat16(0x1.01p0F), 0x3f80) << "a tie goes to the even one, below";
  EXPECT_EQ(to_bfloat16(0x1.03p0F), 0x3f82) << "… or above";
  EXPECT_EQ(to_bfloat16(0x1.010002p0F), 0x3f81);
  EXPECT_EQ(to_bfloat16(std::numeric_limits<float>::max()), 0x7f80) << "the nearest is infinity";
  EXPECT_EQ(to_bfloat16(-INFINITY), 0xff80);
  EXPECT_EQ(to_bfloat16(-0.0F), 0x8000);
  EXPECT_EQ(to_bfloat16(-1e-40F), 0x8000) << "subnormal";
  EXPECT_TRUE(std::isnan(from_bfloat16(to_bfloat16(std::bit_cast<float>(0x7f800001U)))));
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = from_bfloat16(static_cast<uint16_t>(bits));
    const bool exact = std::isnormal(value) || std::isinf(value);
    ASSERT_EQ(exact, exact && to_bfloat16(value) == bits) << bits;
  }
}

TEST(TileKernels, ConversionsAgreeToTheBit) {
  std::vector<float> special = {0.0F,      -0.0F,    1e-40F,
                                -1e-40F,   INFINITY, -INFINITY,
                                NAN,       -NAN,     std::numeric_limits<float>::max(),
                                0x1.01p0F, 0x1.03p0F};
  Random random(1);
  constexpr int kPixels = 37;
  alignas(64) std::array<float, 4 * kPixels * engine::kTileChannels> sums;
  for (size_t i = 0; i < sums.size(); ++i)
    sums[i] = i % 3 == 0 ? special[i / 3 % special.size()]
                         : static_cast<float>(random.normal() * std::exp(4 * random.normal()));
  const float* lower = sums.data() + ptrdiff_t{2} * kPixels * engine::kTileChannels;
  std::vector<uint16_t> want(kPixels * engine::kTileChannels);
  for (const TileKernels* k : usable_tiles())
    for (const bool relu : {false, true})
      for (const bool pool : {false, true}) {
        std::vector<uint16_t> got(want.size());
        const auto run = [&](const TileKernels& kernels, uint16_t* to) {
          if (pool)
            kernels.pool(sums.data(), lower, kPixels, relu, to);
          else
            kernels.round(sums.data(), kPixels, relu, to);
        };
        run(*engine::emulated_amx_kernels(), want.data());
        run(*k, got.data());
        EXPECT_EQ(got, want) << k->name << (relu ? " relu" : "") << (pool ? " pool" : "");
        const bool nan = std::any_of(got.begin(), got.end(),
                                     [](uint16_t x) { return std::isnan(from_bfloat16(x)); });
        EXPECT_TRUE(nan) << "NaN must not become a number";
      }
}

/// sums = bias + Σ, of random numbers, by one of the kernels.
std::vector<float> products(const TileKernels& k, int rows, int blocks, bool two, int taps,
                            double spread) {
  Random random(static_cast<uint64_t>(rows) * 100 + blocks);
  const auto draw = [&] {
    return static_cast<float>(random.normal() * std::exp(spread * random.normal()));
  };
  const size_t row = 20 * engine::kTileChannels;
  const size_t block = 4 * row;
  std::vector<uint16_t> pixels(block * blocks + 40 * engine::kTileChannels);
  for (uint16_t& x : pixels) x = to_bfloat16(draw());
  std::vector<uint16_t> weights(static_cast<size_t>(blocks) * taps * engine::kTapWeights);
  for (uint16_t& x : weights) x = to_bfloat16(draw());
  alignas(64) std::array<float, engine::kTileChannels> bias;
  for (float& x : bias) x = draw();
  alignas(64) std::array<float, 2 * engine::kTileSums> sums{};
  k.enter(rows);
  const engine::TileProduct product{{pixels.data(), two ? pixels.data() + row : nullptr},
                                    block,
                                    row,
                                    rows,
                                    weights.data(),
                                    blocks,
                                    bias.data(),
                                    {sums.data(), sums.data() + engine::kTileSums},
                                    weights.data(),
                                    1,
                                    {pixels.data(), pixels.data()}};
  (taps == 9 ? k.convolve : k.multiply)(product);
  k.leave();
  return {sums.begin(), sums.end()};
}

TEST(TileKernels, MultiplyAsPlainSumsDo) {
  for (const TileKernels* k : usable_tiles())
    for (const int rows : {1, 15, 16})
      for (const int blocks : {1, 2, 5})
        for (const bool two : {false, true})
          for (const int taps : {1, 9}) {
            const int depth = taps == 1 ? 1 : blocks;
            const std::vector<float> got = products(*k, rows, depth, two, taps, 0);
            const std::vector<float> want =
                products(*engine::emulated_amx_kernels(), rows, depth, two, taps, 0);
            for (size_t i = 0; i < got.size(); ++i)
              ASSERT_NEAR(got[i], want[i], 1e-3) << k->name << " " << rows << " rows";
            EXPECT_NE(got[static_cast<size_t>(rows) * 32 - 1], 0);
            if (rows < 16) {
              EXPECT_EQ(got[static_cast<size_t>(rows) * 32], 0) << "not written";
            }
          }
}

TEST(TileKernels, TheEmulationGivesTheHardwaresBits) {
  const TileKernels* amx = engine::amx_kernels();
  if (amx == nullptr) GTEST_SKIP() << "AMX: this processor, or its system, does not have it";
  for (const double spread : {0.0, 3.0})
    for (const int rows : {15, 16})
      for (const int blocks : {1, 16})
        EXPECT_EQ(products(*amx, rows, blocks, true, 9, spread),
                  products(*engine::emulated_amx_kernels(), rows, blocks, true, 9, spread));
}

/// Small whole numbers, whose products and sums are exact.
std::vector<float> whole_numbers(size_t count, int most, uint64_t seed) {
  Random random(seed, 4);
  std::vector<float> values(count);
  for (float& v : values) v = static_cast<float>(std::floor(random.uniform(-most, most + 1)));
  return values;
}

/// Sets tensors so that all of a network's sums are exact in float32, and its first convolution's
/// in bfloat16 too.
TensorMap whole_tensors(const Network& net) {
  TensorMap tensors;
  uint64_t seed = 1;
  for (const TensorSpec& spec : tensor_specs(net))
    tensors.emplace(
        spec.name,
        Tensor(spec.shape, whole_numbers(static_cast<size_t>(spec.elements()), 1, ++seed)));
  return tensors;
}

TEST_F(Tiles, ExactOverASweepOfShapes) {
  const std::vector<const TileKernels*> kinds = usable_tiles();
  // One-pixel maps, odd sizes, widths of whole tiles of 16 and of 15, several strips.
  for (const auto& [height, width] : std::vector<std::pair<int, int>>{
           {1, 1}, {1, 9}, {2, 3}, {5, 4}, {7, 16}, {17, 19}, {3, 30}, {35, 32}, {40, 15}})
    for (const int channels : {1, 4, 33})
      for (const int outputs : {7, 32, 70})
        for (const bool relu : {false, true}) {
          Network net{"test", height, width, {}};
          append(net, {.kind = LayerKind::input, .name = "input"});
          append(net, {.kind = LayerKind::conv, .name = "a", .outputs = channels, .relu = relu});
          append(net, {.kind = LayerKind::conv, .name = "b", .outputs = outputs, .relu = relu});
          if (height >= 2 && width >= 2 && outputs != 32)
            append(net, {.kind = LayerKind::maxpool, .name = "pool"});
          const TensorMap tensors = whole_tensors(net);
          for (const int images : {1, 3}) {
            std::vector<std::vector<float>> results;
            for (const TileKernels* k : kinds) {
              engine::Engine engine(net, 0, net.layers.size(), tensors, bf16(k));
              const auto size = static_cast<size_t>(engine.input_elements());
              const std::vector<float> in = whole_numbers(size * images, 2, 9);
              std::vector<float> out(static_cast<size_t>(engine.output_elements()) * images, NAN);
              engine.run(in.data(), images, out.data());
              for (int n = 0; n < images; ++n) {
                const auto begin = in.begin() + static_cast<ptrdiff_t>(n * size);
                const std::vector<double> want =
                    engine::reference_forward(net, 0, net.layers.size(), tensors,
                                              {begin, begin + static_cast<ptrdiff_t>(size)});
                for (size_t i = 0; i < want.size(); ++i)
                  ASSERT_EQ(out[n * want.size() + i],
                            from_bfloat16(to_bfloat16(static_cast<float>(want[i]))))
                      << k->name << " " << channels << " to " << outputs << " at " << height << "x"
                      << width << ", image " << n;
              }
            }
          }
        }
}

TEST_F(Tiles, StayNearTheReferenceInWholeNetworks) {
  struct Case {
    const char* backbone;
    const char* until;
    int height, width;
    const char* head;
  };
  for (const TileKernels* k : usable_tiles())
    for (const Case& c : {Case{"vgg11", "block3_pool", 48, 40, "flatten dense:9"},
                          Case{"vgg11_bn", "block2_pool", 33, 40, "gmp dense:5"},
                          Case{"vgg-mini", "block3_pool", 64, 64,
                               "batchnorm conv:11 maxpool dropout:0.5 batchnorm stats"}}) {
      const Network net =
          with_head(cut_after(backbone(c.backbone, c.height, c.width), c.until), c.head, 3);
      const TensorMap tensors = testing::make_tensors(net, 5);
      engine::Engine exact(net, 0, net.layers.size(), tensors, {2, 4});
      engine::Engine rounded(net, 0, net.layers.size(), tensors, bf16(k));
      const auto in = static_cast<size_t>(exact.input_elements());
      std::vector<float> input(5 * in);
      Random random(3);
      for (float& v : input) v = static_cast<float>(random.normal());
      std::vector<float> want(5 * static_cast<size_t>(exact.output_elements()));
      std::vector<float> got(want.size());
      exact.run(input.data(), 5, want.data());
      rounded.run(input.data(), 5, got.data());
      double most = 0;
      double error = 0;
      for (size_t i = 0; i < want.size(); ++i) {
        most = std::max(most, std::abs(double{want[i]}));
        error = std::max(error, std::abs(double{got[i]} - want[i]));
      }
      EXPECT_LT(error / most, 2e-2) << k->name << " " << c.head;
      EXPECT_GT(error / most, 1e-5) << "was it computed in float32?";

      // Neither other images nor threads, nor another engine with the same weights, matter.
      engine::Engine other = rounded.with_same_weights(bf16(k, 3, 2));
      std::vector<float> alone(static_cast<size_t>(exact.output_elements()));
      for (size_t n = 0; n < 5; ++n) {
        other.run(&input[n * in], 1, alone.data());
        EXPECT_TRUE(std::equal(alone.begin(), alone.end(), &got[n * alone.size()])) << n;
      }
    }
}

TEST_F(Tiles, WhatIsNotANumberStaysSo) {
  const Network net = cut_after(backbone("vgg11", 32, 32), "block2_pool");
  engine::Engine engine(net, 0, net.layers.size(), testing::make_tensors(net, 1),
                        bf16(engine::tile_kernels()));
  std::vector<float> in(static_cast<size_t>(engine.input_elements()), 1);
  in[500] = NAN;
  std::vector<float> out(static_cast<size_t>(engine.output_elements()));
  engine.run(in.data(), 1, out.data());
  EXPECT_TRUE(std::any_of(out.begin(), out.end(), [](float v) { return std::isnan(v); }));
}

TEST_F(Tiles, TakeTheMemoryThatWasEstimated) {
  const Network net = with_head(backbone("vgg11", 64, 64), "gap", 10);
  engine::Engine engine(net, 0, net.layers.size(), testing::make_tensors(net, 5),
                        bf16(engine::tile_kernels()));
  const uint64_t estimate = engine.estimate(4);
  const engine::EngineMemory memory = engine.prepare(4);
  EXPECT_LT(static_cast<double>(memory.weights + memory.buffers), 1.3 * estimate);
  EXPECT_GT(static_cast<double>(memory.weights + memory.buffers), 0.7 * estimate);
}

TEST(Precision, AutomaticIsAlwaysPossible) {
  EXPECT_EQ(resolve_precision(Precision::fp32), Precision::fp32);
  const Precision chosen = resolve_precision(Precision::automatic);
  const TileKernels* tiles = engine::tile_kernels();
  EXPECT_EQ(chosen, tiles != nullptr && tiles->fast ? Precision::bf16 : Precision::fp32);
  if (tiles != nullptr)
    EXPECT_EQ(resolve_precision(Precision::bf16), Precision::bf16);
  else
    EXPECT_ERROR(static_cast<void>(resolve_precision(Precision::bf16)), ErrorKind::usage, "AMX");
}

}  // namespace
}  // namespace graft
