// Convolutions in bfloat16: every kind of tile that can run here, and AMX's emulation.
#include <array>
#include <cmath>
#include <iostream>
#include <limits>

#include "base/bfloat16.h"
#include "base/half.h"
#include "base/random.h"
#include "engine/engine.h"
#include "engine/reference.h"
#include "engine/tile_kernels.h"
#include "support.h"
#include "weights/load.h"

namespace graft {
namespace {

using engine::TileFormat;
using engine::TileKernels;

/// The emulation, and those of the processor.
std::vector<const TileKernels*> usable_tiles(TileFormat format) {
  const bool halves = format == TileFormat::halves;
  std::vector<const TileKernels*> usable = {halves ? engine::emulated_amx_fp16_kernels()
                                                   : engine::emulated_amx_kernels()};
  const auto add = [&](const TileKernels* kernels, const char* name) {
    if (kernels != nullptr)
      usable.push_back(kernels);
    else
      std::cout << "SKIPPED: " << name << ": this processor, or its system, does not have it\n";
  };
  if (halves) {
    add(engine::amx_fp16_kernels(), "amx-fp16");
  } else {
    add(engine::amx_kernels(), "amx");
    add(engine::avx512_bf16_kernels(), "avx512_bf16");
  }
  return usable;
}

engine::EngineOptions on(const TileKernels* tiles, int threads = 2, int max_batch = 4) {
  engine::EngineOptions options{threads, max_batch};
  options.tiles = tiles;
  return options;
}

constexpr TileFormat kFormats[] = {TileFormat::bf16, TileFormat::halves};

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

TEST(Halves, SplitKeepsTheDigits) {
  Random random(2);
  for (int i = 0; i < 10'000; ++i) {
    const auto x = static_cast<float>(random.normal() * std::exp(3 * random.normal()));
    uint16_t high = 0;
    uint16_t low = 0;
    split_halves(x, &high, &low);
    ASSERT_NEAR(from_half(high) + from_half(low), x, std::max(std::abs(x) * 0x1p-21F, 0x1p-25F));
  }
  for (const float x : {INFINITY, -INFINITY, NAN, 1e6F}) {
    uint16_t high = 0;
    uint16_t low = 0;
    split_halves(x, &high, &low);
    EXPECT_EQ(high & 0x7c00, 0x7c00) << x;
    EXPECT_EQ(low & 0x7c00, 0x7c00) << x;
  }
}

TEST(TileKernels, ConversionsAgreeToTheBit) {
  const std::vector<float> special = {0.0F,      -0.0F,    1e-40F,
                                      -1e-40F,   INFINITY, -INFINITY,
                                      NAN,       -NAN,     std::numeric_limits<float>::max(),
                                      0x1.01p0F, 0x1.03p0F};
  Random random(1);
  constexpr int kPixels = 37;
  constexpr size_t kNumbers = kPixels * engine::kTileChannels;
  alignas(64) std::array<float, 4 * kNumbers> sums;
  for (const TileFormat format : kFormats) {
    const bool halves = format == TileFormat::halves;
    // Of halves, finite ones: their NaN differ in bits that nobody reads.
    for (size_t i = 0; i < sums.size(); ++i)
      sums[i] = i % 3 == 0 && !halves
                    ? special[i / 3 % special.size()]
                    : static_cast<float>(random.normal() * std::exp(4 * random.normal()));
    const std::vector<const TileKernels*> kinds = usable_tiles(format);
    for (const TileKernels* k : kinds)
      for (const bool relu : {false, true})
        for (const bool pool : {false, true}) {
          std::vector<uint16_t> got(2 * kNumbers);
          std::vector<uint16_t> want(2 * kNumbers);
          const auto run = [&](const TileKernels& kernels, uint16_t* to) {
            float most = 0;
            const engine::TileRounding how{relu, 0.125F, kNumbers, &most};
            if (pool)
              kernels.pool(sums.data(), sums.data() + 2 * kNumbers, kPixels, how, to);
            else
              kernels.round(sums.data(), kPixels, how, to);
            return most;
          };
          const float most = run(*kinds.front(), want.data());
          EXPECT_EQ(run(*k, got.data()), most);
          EXPECT_EQ(got, want) << k->name << (relu ? " relu" : "") << (pool ? " pool" : "");
          EXPECT_EQ(most > 0, halves);
          if (halves) continue;
          const bool nan = std::any_of(got.begin(), got.end(),
                                       [](uint16_t x) { return std::isnan(from_bfloat16(x)); });
          EXPECT_TRUE(nan) << "NaN must not become a number";
        }
  }
}

/// sums = bias + Σ, of random numbers, by one of the kernels.
std::vector<float> products(const TileKernels& k, int rows, int blocks, bool two, int taps,
                            double spread) {
  Random random(static_cast<uint64_t>(rows) * 100 + static_cast<uint64_t>(blocks));
  const auto draw = [&] {
    return static_cast<float>(random.normal() * std::exp(spread * random.normal()));
  };
  const size_t row = 20 * engine::kTileChannels;
  const size_t block = 4 * row;
  const size_t low = block * blocks + 40 * engine::kTileChannels;
  const auto parts = static_cast<size_t>(engine::tile_parts(k.format));
  std::vector<uint16_t> pixels(low * parts);
  std::vector<uint16_t> weights(blocks * taps * parts * engine::kTapWeights);
  const auto fill = [&](uint16_t* from, size_t count) {
    for (size_t i = 0; i < count; ++i)
      if (parts == 1)
        from[i] = to_bfloat16(draw());
      else
        split_halves(draw(), from + i, from + i + count);
  };
  fill(pixels.data(), low);
  for (size_t i = 0; i < weights.size(); i += parts * engine::kTapWeights)
    fill(&weights[i], engine::kTapWeights);
  alignas(64) std::array<float, engine::kTileChannels> bias;
  for (float& x : bias) x = draw();
  alignas(64) std::array<float, 2 * engine::kTileSums> sums{};
  k.enter(rows);
  const engine::TileProduct product{{pixels.data(), two ? pixels.data() + row : nullptr},
                                    low,
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

TEST(TileKernels, MultiplyAsTheEmulationDoes) {
  for (const TileFormat format : kFormats) {
    const std::vector<const TileKernels*> kinds = usable_tiles(format);
    for (const TileKernels* k : kinds)
      for (const int rows : {1, 15, 16})
        for (const int blocks : {1, 2, 5})
          for (const bool two : {false, true})
            for (const int taps : {1, 9}) {
              const std::vector<float> got = products(*k, rows, blocks, two, taps, 0);
              const std::vector<float> want = products(*kinds.front(), rows, blocks, two, taps, 0);
              for (size_t i = 0; i < got.size(); ++i)
                ASSERT_NEAR(got[i], want[i], 1e-3) << k->name << " " << rows << " rows";
              EXPECT_NE(got[static_cast<size_t>(rows) * 32 - 1], 0);
              if (rows < 16) {
                EXPECT_EQ(got[static_cast<size_t>(rows) * 32], 0) << "not written";
              }
            }
  }
}

TEST(TileKernels, TheEmulationGivesTheHardwaresBits) {
  int compared = 0;
  for (const auto& [hardware, emulation] :
       {std::pair{engine::amx_kernels(), engine::emulated_amx_kernels()},
        {engine::amx_fp16_kernels(), engine::emulated_amx_fp16_kernels()}}) {
    if (hardware == nullptr) continue;
    ++compared;
    // Wide ranges, but within those of halves.
    for (const double spread : {0.0, hardware->format == TileFormat::bf16 ? 3.0 : 1.0})
      for (const int rows : {15, 16})
        for (const int blocks : {1, 16})
          EXPECT_EQ(products(*hardware, rows, blocks, true, 9, spread),
                    products(*emulation, rows, blocks, true, 9, spread));
  }
  if (compared == 0) GTEST_SKIP() << "AMX: this processor, or its system, does not have it";
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

TEST(Tiles, ExactOverASweepOfShapes) {
  const std::vector<const TileKernels*> kinds = usable_tiles(TileFormat::bf16);
  // One-pixel maps, odd sizes, widths of whole tiles of 16 and of 15, several strips.
  for (const auto& [height, width] : std::vector<std::pair<int, int>>{
           {1, 1}, {1, 9}, {2, 3}, {5, 4}, {7, 16}, {17, 19}, {3, 30}, {35, 32}, {40, 15}})
    for (const int channels : {1, 4, 33})
      for (const int outputs : {7, 32, 70}) {
        const bool relu = (height + outputs) % 2 == 0;
        Network net{"test", height, width, {}};
        append(net, {.kind = LayerKind::input, .name = "input"});
        append(net, {.kind = LayerKind::conv, .name = "a", .outputs = channels, .relu = relu});
        append(net, {.kind = LayerKind::conv, .name = "b", .outputs = outputs, .relu = relu});
        if (height >= 2 && width >= 2 && outputs != 32)
          append(net, {.kind = LayerKind::maxpool, .name = "pool"});
        const TensorMap tensors = whole_tensors(net);
        constexpr int kImages = 2;
        for (const TileKernels* k : kinds) {
          engine::Engine engine(net, 0, net.layers.size(), tensors, on(k));
          const auto size = static_cast<size_t>(engine.input_elements());
          const std::vector<float> in = whole_numbers(size * kImages, 2, 9);
          std::vector<float> out(static_cast<size_t>(engine.output_elements()) * kImages, NAN);
          engine.run(in.data(), kImages, out.data());
          for (int n = 0; n < kImages; ++n) {
            const auto begin = in.begin() + static_cast<ptrdiff_t>(n * size);
            const std::vector<double> want = engine::reference_forward(
                net, 0, net.layers.size(), tensors, {begin, begin + static_cast<ptrdiff_t>(size)});
            for (size_t i = 0; i < want.size(); ++i)
              ASSERT_EQ(out[n * want.size() + i],
                        from_bfloat16(to_bfloat16(static_cast<float>(want[i]))))
                  << k->name << " " << channels << " to " << outputs << " at " << height << "x"
                  << width << ", image " << n;
          }
        }
      }
}

/// Largest error over the largest value, against plain loops in double.
double error_of(const Network& net, const TensorMap& tensors, engine::Engine& engine,
                const std::vector<float>& input, int images, std::vector<float>& got) {
  const auto in = static_cast<ptrdiff_t>(engine.input_elements());
  got.assign(static_cast<size_t>(engine.output_elements()) * images, NAN);
  engine.run(input.data(), images, got.data());
  double most = 0;
  double error = 0;
  for (int n = 0; n < images; ++n) {
    const std::vector<double> want = engine::reference_forward(
        net, 0, net.layers.size(), tensors, {input.begin() + n * in, input.begin() + (n + 1) * in});
    for (size_t i = 0; i < want.size(); ++i) {
      const double value = got[n * want.size() + i];
      most = std::max(most, std::abs(want[i]));
      error = std::max(error, std::isfinite(value) ? std::abs(value - want[i]) : INFINITY);
    }
  }
  return error / most;
}

TEST(Tiles, StayNearTheReferenceInWholeNetworks) {
  struct Case {
    const char* backbone;
    const char* until;
    int height, width;
    const char* head;
  };
  for (const TileFormat format : kFormats)
    for (const TileKernels* k : usable_tiles(format))
      for (const Case& c : {Case{"vgg11", "block3_pool", 48, 40, "flatten dense:9"},
                            Case{"vgg11_bn", "block2_pool", 33, 40, "gmp dense:5"},
                            Case{"vgg-mini", "block3_pool", 64, 64,
                                 "batchnorm conv:11 maxpool dropout:0.5 batchnorm stats"}}) {
        const Network net =
            with_head(cut_after(backbone(c.backbone, c.height, c.width), c.until), c.head, 3);
        const TensorMap tensors = testing::make_tensors(net, 5);
        engine::Engine engine(net, 0, net.layers.size(), tensors, on(k));
        const auto in = static_cast<size_t>(engine.input_elements());
        std::vector<float> input(3 * in);
        Random random(3);
        for (float& v : input) v = static_cast<float>(random.normal());
        std::vector<float> got;
        const double error = error_of(net, tensors, engine, input, 3, got);
        const bool halves = format == TileFormat::halves;
        EXPECT_LT(error, halves ? 4e-6 : 2e-2) << k->name << " " << c.head;
        if (!halves) {
          EXPECT_GT(error, 1e-5) << "was it computed in float32?";
        }

        // Neither other images nor threads, nor another engine with the same weights, matter.
        engine::Engine other = engine.with_same_weights(on(k, 3, 2));
        std::vector<float> alone(got.size() / 3);
        for (size_t n = 0; n < 3; ++n) {
          other.run(&input[n * in], 1, alone.data());
          EXPECT_TRUE(std::equal(alone.begin(), alone.end(), &got[n * alone.size()])) << n;
        }
      }
}

TEST(Tiles, HalvesHoldNumbersOfAnySize) {
  // Far outside of what a half can hold, and below what it can tell from zero.
  const Network net = with_head(cut_after(backbone("vgg11", 32, 32), "block3_pool"), "gap", 4);
  const TensorMap tensors = testing::make_tensors(net, 5);
  for (const TileKernels* k : usable_tiles(TileFormat::halves)) {
    engine::Engine engine(net, 0, net.layers.size(), tensors, on(k));
    std::vector<float> input(3 * static_cast<size_t>(engine.input_elements()));
    Random random(3);
    for (size_t i = 0; i < input.size(); ++i)
      input[i] = static_cast<float>(random.normal() * (i < input.size() / 3       ? 1e6
                                                       : i < 2 * input.size() / 3 ? 1e-6
                                                                                  : 0));
    const size_t each = input.size() / 3;
    for (int n = 0; n < 3; ++n) {
      std::vector<float> got;
      EXPECT_LT(error_of(net, tensors, engine,
                         {input.begin() + static_cast<ptrdiff_t>(n * each),
                          input.begin() + static_cast<ptrdiff_t>((n + 1) * each)},
                         1, got),
                4e-6)
          << n;
    }
  }
}

TEST(Tiles, WhatIsNotANumberStaysSo) {
  const Network net = cut_after(backbone("vgg11", 32, 32), "block2_pool");
  for (const TileFormat format : kFormats)
    for (const TileKernels* k : usable_tiles(format)) {
      engine::Engine engine(net, 0, net.layers.size(), testing::make_tensors(net, 1), on(k));
      std::vector<float> in(static_cast<size_t>(engine.input_elements()), 1);
      in[500] = NAN;
      std::vector<float> out(static_cast<size_t>(engine.output_elements()));
      engine.run(in.data(), 1, out.data());
      EXPECT_TRUE(std::any_of(out.begin(), out.end(), [](float v) { return std::isnan(v); }))
          << k->name;
    }
}

TEST(Tiles, TakeTheMemoryThatWasEstimated) {
  const Network net = with_head(backbone("vgg11", 64, 64), "gap", 10);
  for (const TileKernels* k :
       {engine::emulated_amx_kernels(), engine::emulated_amx_fp16_kernels()}) {
    engine::Engine engine(net, 0, net.layers.size(), testing::make_tensors(net, 5), on(k));
    const auto estimate = static_cast<double>(engine.estimate(4));
    const engine::EngineMemory memory = engine.prepare(4);
    const auto taken = static_cast<double>(memory.weights + memory.buffers);
    EXPECT_LT(taken, 1.3 * estimate) << k->name;
    EXPECT_GT(taken, 0.7 * estimate) << k->name;
  }
}

TEST(Precision, AutomaticIsAlwaysPossible) {
  EXPECT_EQ(resolve_precision(Precision::fp32), Precision::fp32);
  const Precision chosen = resolve_precision(Precision::automatic);
  const TileKernels* tiles = engine::tile_kernels(Precision::bf16);
  EXPECT_EQ(chosen, tiles != nullptr && tiles->fast ? Precision::bf16 : Precision::fp32);
  if (tiles != nullptr)
    EXPECT_EQ(resolve_precision(Precision::bf16), Precision::bf16);
  else
    EXPECT_ERROR(static_cast<void>(resolve_precision(Precision::bf16)), ErrorKind::usage, "AMX");
}

}  // namespace
}  // namespace graft
