// accuracy WEIGHTS.h5 BACKBONE LAYER SIZE PHOTO…: error of the engine behind each pooling up to
// LAYER on real photos, largest difference from float64 over the largest activation, for the
// engine's own choice of tiles, for each tile size alone, in bfloat16 (emulated) and by pairs of
// halves (emulated).
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "base/fail.h"
#include "engine/engine.h"
#include "engine/reference.h"
#include "engine/tile_kernels.h"
#include "graft/image.h"
#include "weights/load.h"

namespace {

int run(int argc, char** argv) {
  using namespace graft;
  const int size = std::atoi(argv[4]);
  const Network whole = cut_after(backbone(argv[2], size, size), argv[3]);
  const Weights weights =
      load_weights({.weights = argv[1], .backbone = argv[2], .cache = {}}, whole);
  const TensorMap& tensors = weights.tensors;
  const Preprocessing& preprocessing = weights.preprocessing;
  fmt::print("{:<14}", "behind");
  constexpr int kMR[] = {0, 4, 6, 42, 64, 0, 0};
  for (const char* name : {"chosen", "F(4)", "F(6)", "F(4+2)", "F(6+4)", "bf16", "fp16x3"})
    fmt::print("{:>10}", name);
  fmt::print("\n");
  for (size_t end = 1; end <= whole.layers.size(); ++end) {
    if (whole.layers[end - 1].kind != LayerKind::maxpool) continue;
    const Network net = cut_after(whole, whole.layers[end - 1].name);
    double errors[std::size(kMR)] = {};
    double most = 0;
    std::vector<float> in;
    std::vector<std::vector<double>> want;
    for (int p = 5; p < argc; ++p) {
      std::vector<float> one(static_cast<size_t>(3) * size * size);
      to_input(fit_image(load_image(argv[p]), size, size, preprocessing), preprocessing,
               one.data());
      want.push_back(engine::reference_forward(net, 0, end, tensors, {one.begin(), one.end()}));
      in.insert(in.end(), one.begin(), one.end());
    }
    for (size_t k = 0; k < std::size(kMR); ++k) {
      engine::EngineOptions options{0, 16, kMR[k]};
      if (k + 2 == std::size(kMR)) options.tiles = engine::emulated_amx_kernels();
      if (k + 1 == std::size(kMR)) options.tiles = engine::emulated_amx_fp16_kernels();
      engine::Engine engine(net, 0, end, tensors, options);
      const auto out_size = static_cast<size_t>(engine.output_elements());
      std::vector<float> out(out_size * want.size());
      engine.run(in.data(), static_cast<int>(want.size()), out.data());
      for (size_t n = 0; n < want.size(); ++n)
        for (size_t i = 0; i < out_size; ++i) {
          errors[k] = std::max(errors[k], std::abs(out[n * out_size + i] - want[n][i]));
          most = std::max(most, std::abs(want[n][i]));
        }
    }
    fmt::print("{:<14}", net.layers.back().name);
    for (const double error : errors) fmt::print("{:>10.1e}", error / most);
    fmt::print("\n");
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 6) return 2;
  try {
    return run(argc, argv);
  } catch (const graft::Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
