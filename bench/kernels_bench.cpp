// How fast are the engine's inner loops alone, on data in the first-level cache, one thread?
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <functional>

#include "engine/buffer.h"
#include "engine/kernels.h"

namespace {

using graft::engine::Buffer;

/// Seconds of one call, best of seven runs.
double best_of(const std::function<void()>& call, int calls) {
  double best = 1e9;
  for (int run = 0; run < 7; ++run) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < calls; ++i) call();
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    best = std::min(best, taken.count() / calls);
  }
  return best;
}

}  // namespace

int main() {
  const auto& k = graft::engine::kernels();
  const auto block = static_cast<size_t>(k.block);
  const auto nr = static_cast<size_t>(k.nr);
  const auto mr = static_cast<size_t>(k.mr);
  fmt::print("{}\n", k.target);
  for (int rows = 2; rows <= k.mr; rows += 2)
    for (const size_t depth : {64, 128, 256}) {
      const Buffer a(depth * mr);
      const Buffer b(depth * nr);
      const Buffer c(mr * nr);
      const double seconds = best_of(
          [&] {
            k.multiply(a.data(), b.data(), c.data(), rows, k.nr, depth / block, false, b.data(), 8);
          },
          20'000);
      fmt::print("product {} x {}, depth {:3}: {:.1f} GFLOP/s\n", rows, nr, depth,
                 2e-9 * rows * static_cast<double>(nr * depth) / seconds);
    }
  for (const int m : {2, 4, 6}) {
    const size_t frequency = 2 * mr * nr + 16;
    const Buffer maps(100 * 100 * block);
    const Buffer v(64 * frequency);
    const Buffer bias(block);
    const double in = best_of(
        [&] {
          k.transform_input({m, m}, maps.data(), 10 * k.block, v.data(), frequency, maps.data());
        },
        10'000);
    const double out = best_of(
        [&] {
          k.transform_output({m, m}, v.data(), frequency, bias.data(), true, false,
                             {maps.data(), 80 * k.block, m, m});
        },
        10'000);
    fmt::print("F({0}x{0}) transforms of {3} channels: input {1:.0f} ns, output {2:.0f} ns\n", m,
               in * 1e9, out * 1e9, block);
  }
  constexpr int kPixels = 144;
  const Buffer planes(3 * 3 * (kPixels + 8));
  const Buffer weights(27 * nr);
  const Buffer out(2 * kPixels * block);
  const double row = best_of(
      [&] {
        k.convolve_row(planes.data(), 3, 3 * (kPixels + 8), kPixels + 8, weights.data(),
                       weights.data(), true, kPixels, out.data(), out.data() + kPixels * block);
      },
      10'000);
  fmt::print("first layer, 3 channels: {:.1f} GFLOP/s\n", 2e-9 * 27 * nr * kPixels / row);
  return 0;
}
