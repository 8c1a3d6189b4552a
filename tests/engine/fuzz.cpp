// engine_fuzz SECONDS [SEED]: random networks, shapes, batches, thread counts and tiles through the
// engine and the scalar reference, until the time is up. Prints the case that differs, and the seed
// that repeats it. ctest runs it for a few seconds; CONTRIBUTING.md says when to run it for longer.
#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <cstdlib>

#include "base/random.h"
#include "engine/engine.h"
#include "engine/reference.h"
#include "engine/tile_kernels.h"
#include "support.h"

namespace graft {
namespace {

struct Case {
  Network net;
  engine::EngineOptions options;
  int images = 1;
  std::string text;
};

Case draw_case(uint64_t seed) {
  Random random(seed, 1);
  const auto pick = [&](int least, int most) {
    return static_cast<int>(std::floor(random.uniform(least, most + 1)));
  };
  Case c;
  c.net = {"fuzz", pick(1, 40), pick(1, 40), {}};
  append(c.net, {.kind = LayerKind::input, .name = "input"});
  c.text = fmt::format("{}x{}", c.net.input_height, c.net.input_width);
  int height = c.net.input_height;
  int width = c.net.input_width;
  bool flat = false;
  const int layers = pick(1, 7);
  for (int i = 0; i < layers; ++i) {
    Layer layer{.name = fmt::format("layer{}", i)};
    const int kind = pick(0, 9);
    if (flat) {
      layer.kind = kind < 5   ? LayerKind::dense
                   : kind < 8 ? LayerKind::batchnorm
                              : LayerKind::dropout;
    } else if (kind < 6) {
      layer.kind = LayerKind::conv;
    } else if (kind == 6 && height >= 2 && width >= 2) {
      layer.kind = LayerKind::maxpool;
      height /= 2;
      width /= 2;
    } else if (kind == 7) {
      layer.kind = LayerKind::batchnorm;
    } else {
      constexpr LayerKind kEnds[] = {LayerKind::flatten, LayerKind::gap, LayerKind::gmp,
                                     LayerKind::stats};
      layer.kind = kEnds[pick(0, 3)];
      flat = true;
    }
    const bool weights = layer.kind == LayerKind::conv || layer.kind == LayerKind::dense;
    // Mostly few channels; now and then enough for shared blocks and for two depths of summation.
    if (weights) layer.outputs = pick(0, 19) == 0 ? pick(257, 530) : pick(1, 50);
    if (weights || layer.kind == LayerKind::batchnorm) layer.relu = pick(0, 1) == 1;
    c.text += fmt::format(" {}{}{}", to_string(layer.kind), layer.outputs > 0 ? ":" : "",
                          layer.outputs > 0 ? std::to_string(layer.outputs) : "");
    if (layer.relu) c.text += "+relu";
    append(c.net, layer);
  }
  constexpr int kTilesForced[] = {0, 0, 0, 4, 6, 42, 62, 64};
  c.images = pick(1, 9);
  c.options = {pick(1, 4), pick(1, 8), kTilesForced[pick(0, 7)]};
  if (pick(0, 2) == 0) {
    std::vector<const engine::TileKernels*> kinds;
    for (const engine::TileKernels* tiles :
         {engine::emulated_amx_kernels(), engine::emulated_amx_fp16_kernels(),
          engine::amx_kernels(), engine::amx_fp16_kernels(), engine::avx512_bf16_kernels()})
      if (tiles != nullptr) kinds.push_back(tiles);
    c.options.tiles = kinds[pick(0, static_cast<int>(kinds.size()) - 1)];
    c.text += fmt::format(", tiles of {}", c.options.tiles->name);
  }
  c.text += fmt::format(", {} images in steps of {}, {} threads, tile {}", c.images,
                        c.options.max_batch, c.options.threads, c.options.winograd_tile);
  return c;
}

/// Largest error over the largest value.
double error_of(const Case& c, uint64_t seed) {
  const TensorMap tensors = testing::make_tensors(c.net, seed);
  Random random(seed, 2);
  engine::Engine engine(c.net, 0, c.net.layers.size(), tensors, c.options);
  const auto in_size = static_cast<size_t>(engine.input_elements());
  const auto out_size = static_cast<size_t>(engine.output_elements());
  std::vector<float> in(in_size * c.images);
  for (float& v : in) v = static_cast<float>(random.normal());
  std::vector<float> out(out_size * c.images, NAN);
  engine.run(in.data(), c.images, out.data());
  double error = 0;
  double most = 1e-3;
  for (int n = 0; n < c.images; ++n) {
    const auto* begin = &in[n * in_size];
    const std::vector<double> want =
        engine::reference_forward(c.net, 0, c.net.layers.size(), tensors, {begin, begin + in_size});
    for (size_t i = 0; i < out_size; ++i) {
      const double got = out[n * out_size + i];
      error = std::max(error, std::isfinite(got) ? std::abs(got - want[i]) : INFINITY);
      most = std::max(most, std::abs(want[i]));
    }
  }
  return error / most;
}

int run(double seconds, uint64_t seed) {
  // As in engine_test.cpp, for up to seven layers on signed data, which cancels most. A rounding of
  // bfloat16 is 2^16 times one of float32.
  constexpr double kTolerance = 1e-4;
  constexpr double kTileTolerance = 0.1;
  const auto start = std::chrono::steady_clock::now();
  double worst[2] = {};
  int cases = 0;
  do {
    const Case c = draw_case(seed);
    const double error = error_of(c, seed);
    const bool rounded =
        c.options.tiles != nullptr && c.options.tiles->format == engine::TileFormat::bf16;
    if (!(error < (rounded ? kTileTolerance : kTolerance))) {
      fmt::print("seed {}: error {:.2e}: {}\n", seed, error, c.text);
      return 1;
    }
    worst[rounded ? 1 : 0] = std::max(worst[rounded ? 1 : 0], error);
    ++cases;
    ++seed;
  } while (std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() <
           seconds);
  fmt::print("{} cases agree, largest error {:.1e} of the largest value, {:.1e} with bf16\n", cases,
             worst[0], worst[1]);
  return 0;
}

}  // namespace
}  // namespace graft

int main(int argc, char** argv) {
  if (argc < 2 || argc > 3) return 2;
  return graft::run(std::atof(argv[1]), argc == 3 ? std::strtoull(argv[2], nullptr, 10) : 1);
}
