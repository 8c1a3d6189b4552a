// The engine against the scalar reference in double precision.
#include "engine/engine.h"

#include <cmath>
#include <thread>

#include "base/random.h"
#include "engine/reference.h"
#include "engine/team.h"
#include "graft/network.h"
#include "support.h"
#include "weights/load.h"

namespace graft {
namespace {

using testing::make_tensors;

std::vector<float> make_input(int64_t elements, uint64_t seed) {
  Random random(seed, 7);
  std::vector<float> values(static_cast<size_t>(elements));
  for (float& v : values) v = static_cast<float>(random.normal());
  return values;
}

/// Largest error over the largest value, of `count` images.
double engine_error(const Network& net, size_t begin, int count,
                    const engine::EngineOptions& options) {
  const TensorMap tensors = make_tensors(net, 5);
  engine::Engine engine(net, begin, net.layers.size(), tensors, options);
  const std::vector<float> in = make_input(engine.input_elements() * count, 3);
  std::vector<float> out(static_cast<size_t>(engine.output_elements() * count), NAN);
  engine.run(in.data(), count, out.data());
  double error = 0;
  double most = 0;
  for (int n = 0; n < count; ++n) {
    const auto first = in.begin() + n * engine.input_elements();
    const std::vector<double> want = engine::reference_forward(
        net, begin, net.layers.size(), tensors, {first, first + engine.input_elements()});
    for (size_t i = 0; i < want.size(); ++i) {
      const double got = out[static_cast<size_t>(n * engine.output_elements()) + i];
      error = std::max(error, std::isfinite(got) ? std::abs(got - want[i]) : INFINITY);
      most = std::max(most, std::abs(want[i]));
    }
  }
  EXPECT_GT(most, 0) << "an all-zero output tests nothing";
  return error / most;
}

// A product sums at most 9·512 terms of float32, each rounded by at most 6e-8: errors grow with the
// root of that and the depth, and stay below 1e-5 of the largest value.
constexpr double kTolerance = 1e-5;

TEST(Engine, MatchesReferenceAcrossShapesAndHeads) {
  struct Case {
    const char* backbone;
    const char* until;
    int height, width;
    const char* head;
    int images;
  };
  for (const Case& c :
       {Case{"vgg11", "block2_pool", 32, 32, "gap", 1},
        Case{"vgg13", "block1_pool", 37, 51, "flatten dense:9 dropout:0.3", 3},
        Case{"vgg11_bn", "block2_pool", 33, 40, "gmp dense:5", 2},
        Case{"vgg16", "block1_conv1", 32, 47, "stats batchnorm dense:6 batchnorm", 5},
        Case{"vgg-mini", "block5_pool", 45, 32, "conv:7 batchnorm gap", 4},
        Case{"vgg-mini", "block3_pool", 64, 64,
             "batchnorm conv:11 maxpool dropout:0.5 batchnorm stats", 2}}) {
    const Network net =
        with_head(cut_after(backbone(c.backbone, c.height, c.width), c.until), c.head, 3);
    EXPECT_LT(engine_error(net, 0, c.images, {2, 16}), kTolerance) << c.backbone << " " << c.head;
    EXPECT_LT(engine_error(net, 0, c.images, {1, 2}), kTolerance) << "in steps of two";
  }
}

TEST(Engine, BothTilesOverASweepOfShapes) {
  // One-pixel maps, odd sizes, channels that are no multiples of the vector or the panel.
  for (const int channels : {1, 5, 8, 13, 40})
    for (const int outputs : {1, 7, 16, 23})
      for (const auto& [height, width] : std::vector<std::pair<int, int>>{
               {1, 1}, {1, 9}, {2, 3}, {5, 4}, {6, 6}, {7, 13}, {12, 8}, {17, 19}}) {
        Network net{"test", height, width, {}};
        append(net, {.kind = LayerKind::input, .name = "input"});
        append(net, {.kind = LayerKind::conv, .name = "widen", .outputs = channels, .relu = true});
        append(net, {.kind = LayerKind::conv, .name = "conv", .outputs = outputs});
        if (height >= 2 && width >= 2 && outputs % 2 == 1)
          append(net, {.kind = LayerKind::maxpool, .name = "pool"});
        for (const int tile : {4, 6, 42, 62, 64})
          for (const int images : {1, 3})
            ASSERT_LT(engine_error(net, 1, images, {2, 4, tile}), 4e-5)
                << channels << " to " << outputs << " at " << height << "x" << width << ", F("
                << tile << "), " << images << " images";
      }
}

TEST(Engine, WideLayersShareTheirBlocks) {
  Network net{"test", 9, 10, {}};
  append(net, {.kind = LayerKind::input, .name = "input"});
  append(net, {.kind = LayerKind::conv, .name = "a", .outputs = 520, .relu = true});
  append(net, {.kind = LayerKind::conv, .name = "b", .outputs = 36, .relu = true});
  append(net, {.kind = LayerKind::maxpool, .name = "pool"});
  for (const int tile : {0, 4, 6, 42, 64})
    for (const int threads : {1, 2, 5})
      // Winograd magnifies rounding: its transforms multiply by up to 32 and add up numbers that
      // cancel, most so on signed random data as here.
      EXPECT_LT(engine_error(net, 1, 14, {threads, 14, tile}), 4e-5) << tile << " " << threads;
}

TEST(Engine, StartsAnywhere) {
  const Network net = with_head(cut_after(backbone("vgg-mini", 40, 40), "block3_pool"),
                                "flatten dense:5 dropout:0.1", 4);
  for (size_t begin = 1; begin < net.layers.size(); ++begin)
    EXPECT_LT(engine_error(net, begin, 3, {2, 16}), kTolerance) << net.layers[begin].name;
}

TEST(Engine, EmptyRangeCopies) {
  const Network net = cut_after(backbone("vgg11", 32, 32), "block1_conv1");
  engine::Engine engine(net, 0, 1, {});
  const std::vector<float> in = make_input(engine.input_elements(), 1);
  std::vector<float> out(in.size());
  engine.run(in.data(), 1, out.data());
  EXPECT_EQ(in, out);
}

TEST(Engine, DoesNotTouchItsInputAndIgnoresNeighbours) {
  const Network net = cut_after(backbone("vgg-mini", 32, 32), "block4_pool");
  const TensorMap tensors = make_tensors(net, 1);
  engine::Engine engine(net, 0, net.layers.size(), tensors);
  const std::vector<float> in = make_input(engine.input_elements() * 4, 2);
  std::vector<float> copy = in;
  const auto out_size = static_cast<size_t>(engine.output_elements());
  std::vector<float> four(out_size * 4);
  engine.run(copy.data(), 4, four.data());
  EXPECT_EQ(in, copy);
  // The same images in another order give the same rows, bit for bit.
  const auto row = static_cast<size_t>(engine.input_elements());
  std::vector<float> turned(in.size());
  for (size_t n = 0; n < 4; ++n)
    std::copy_n(in.begin() + static_cast<long>(n * row), row,
                turned.begin() + static_cast<long>((3 - n) * row));
  std::vector<float> other(out_size * 4);
  engine.run(turned.data(), 4, other.data());
  for (size_t n = 0; n < 4; ++n)
    for (size_t i = 0; i < out_size; ++i)
      ASSERT_EQ(four[n * out_size + i], other[(3 - n) * out_size + i]);
}

TEST(Engine, TakesMemoryForTheImagesAtHand) {
  const Network net = with_head(backbone("vgg-mini", 64, 64), "gap", 10);
  const TensorMap tensors = make_tensors(net, 5);
  const size_t end = net.layers.size();
  engine::Engine few(net, 0, end, tensors);
  const engine::EngineMemory small = few.prepare(2);
  EXPECT_LT(small.buffers, few.prepare(16).buffers);
  EXPECT_EQ(small.weights, few.prepare(16).weights);
  // More images after fewer, and fewer after more, are as they are in an engine of their own.
  const auto in = static_cast<size_t>(few.input_elements());
  const std::vector<float> input = make_input(few.input_elements() * 9, 1);
  std::vector<float> want(90);
  engine::Engine(net, 0, end, tensors).run(input.data(), 9, want.data());
  engine::Engine grows(net, 0, end, tensors);
  std::vector<float> got(90);
  for (const auto& [first, count] : {std::pair{0, 2}, {2, 5}, {7, 2}})
    grows.run(&input[in * first], count, &got[10 * static_cast<size_t>(first)]);
  EXPECT_EQ(got, want);
}

TEST(Engine, EstimatesItsMemory) {
  struct Case {
    const char* backbone;
    int size;
    int count;
  };
  for (const Case& c : {Case{"vgg-mini", 64, 16}, Case{"vgg-mini", 512, 1}, Case{"vgg16", 96, 4},
                        Case{"vgg11", 160, 1}}) {
    const Network net = with_head(backbone(c.backbone, c.size, c.size), "gap", 10);
    engine::Engine engine(net, 0, net.layers.size(), make_tensors(net, 5));
    const auto estimate = static_cast<double>(engine.estimate(c.count));
    const engine::EngineMemory memory = engine.prepare(c.count);
    const auto taken = static_cast<double>(memory.weights + memory.buffers);
    EXPECT_GT(estimate, 0.5 * taken) << c.backbone << ' ' << c.size;
    EXPECT_LT(estimate, 2 * taken) << c.backbone << ' ' << c.size;
  }
}

TEST(Engine, ThreadCountDoesNotChangeResults) {
  const Network net = cut_after(backbone("vgg-mini", 48, 48), "block5_pool");
  const TensorMap tensors = make_tensors(net, 1);
  std::vector<float> first;
  for (const int threads : {1, 2, 3, 8, 32}) {
    engine::Engine engine(net, 0, net.layers.size(), tensors, {threads, 16});
    const std::vector<float> in = make_input(engine.input_elements() * 3, 2);
    std::vector<float> out(static_cast<size_t>(engine.output_elements() * 3));
    engine.run(in.data(), 3, out.data());
    if (first.empty()) first = out;
    EXPECT_EQ(first, out) << threads << " threads";
  }
}

TEST(Engine, ServesSeveralCallers) {
  const Network net = cut_after(backbone("vgg-mini", 32, 32), "block3_pool");
  const TensorMap tensors = make_tensors(net, 1);
  engine::Engine engine(net, 0, net.layers.size(), tensors, {2, 16});
  const std::vector<float> in = make_input(engine.input_elements(), 2);
  std::vector<float> want(static_cast<size_t>(engine.output_elements()));
  engine.run(in.data(), 1, want.data());
  std::vector<std::thread> callers;
  for (int c = 0; c < 4; ++c)
    callers.emplace_back([&] {
      for (int k = 0; k < 5; ++k) {
        std::vector<float> got(want.size());
        engine.run(in.data(), 1, got.data());
        EXPECT_EQ(got, want);
      }
    });
  for (auto& caller : callers) caller.join();
}

TEST(Engine, SharesItsWeights) {
  const Network net = with_head(backbone("vgg-mini", 48, 48), "stats dense:9", 4);
  auto first = std::make_unique<engine::Engine>(net, 0, net.layers.size(), make_tensors(net, 1),
                                                engine::EngineOptions{2});
  const engine::EngineMemory memory = first->prepare(4);
  const std::vector<float> in = make_input(first->input_elements() * 4, 2);
  std::vector<float> want(16);
  first->run(in.data(), 4, want.data());
  engine::Engine second = first->with_same_weights({3});
  EXPECT_EQ(second.prepare(4).weights, memory.weights) << "nothing is packed again";
  EXPECT_LT(second.prepare(4).buffers, 2 * memory.buffers);
  // Beside each other, and after the first has gone.
  std::vector<float> got(16);
  std::thread other([&] {
    for (int i = 0; i < 10; ++i) first->run(in.data(), 4, want.data());
  });
  for (int i = 0; i < 10; ++i) second.run(in.data(), 4, got.data());
  other.join();
  EXPECT_EQ(got, want);
  first.reset();
  second.run(in.data(), 4, got.data());
  EXPECT_EQ(got, want);
}

TEST(Engine, OneTeamServesSeveralEngines) {
  const Network net = cut_after(backbone("vgg-mini", 32, 32), "block3_pool");
  const TensorMap tensors = make_tensors(net, 1);
  engine::EngineOptions options;
  options.team = std::make_shared<engine::Team>(2);
  engine::Engine a(net, 0, 5, tensors, options);
  engine::Engine b(net, 5, net.layers.size(), tensors, options);
  engine::Engine whole(net, 0, net.layers.size(), tensors);
  const std::vector<float> in = make_input(whole.input_elements(), 2);
  std::vector<float> want(static_cast<size_t>(whole.output_elements()));
  whole.run(in.data(), 1, want.data());
  std::vector<std::thread> callers;
  for (int c = 0; c < 3; ++c)
    callers.emplace_back([&] {
      std::vector<float> between(static_cast<size_t>(a.output_elements()));
      std::vector<float> got(want.size());
      for (int k = 0; k < 5; ++k) {
        a.run(in.data(), 1, between.data());
        b.run(between.data(), 1, got.data());
      }
      EXPECT_EQ(got, want);
    });
  for (auto& caller : callers) caller.join();
}

TEST(Engine, ResultsDoNotDependOnTheNumberOfImages) {
  const Network net = with_head(backbone("vgg-mini", 61, 75), "conv:24 batchnorm stats dense:9", 4);
  engine::Engine engine(net, 0, net.layers.size(), make_tensors(net, 3), {2, 5});
  const auto in = static_cast<size_t>(engine.input_elements());
  const std::vector<float> input = make_input(engine.input_elements() * 11, 1);
  std::vector<float> together(44);
  engine.run(input.data(), 11, together.data());
  for (size_t n = 0; n < 11; ++n) {
    std::vector<float> alone(4);
    engine.run(&input[n * in], 1, alone.data());
    EXPECT_TRUE(std::equal(alone.begin(), alone.end(), &together[n * 4])) << n;
  }
}

TEST(Engine, NamesTheTensorThatIsMissing) {
  const Network net = cut_after(backbone("vgg11", 32, 32), "block1_pool");
  TensorMap tensors = make_tensors(net, 1);
  tensors.erase("block1_conv1.bias");
  EXPECT_ERROR(engine::Engine(net, 0, net.layers.size(), tensors), ErrorKind::input,
               "block1_conv1.bias");
}

}  // namespace
}  // namespace graft
