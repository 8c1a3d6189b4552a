// How fast are the engine's inner loops alone, on data in the first-level cache, one thread?
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <functional>

#include "engine/buffer.h"
#include "engine/kernels.h"

namespace {

using graft::engine::Buffer;
using graft::engine::kBlock;
using graft::engine::kMR;
using graft::engine::kNR;

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
  fmt::print("{}\n", k.target);
  for (const int rows : {2, 4, kMR})
    for (const size_t k8 : {8, 16, 32}) {
      const Buffer a(k8 * kMR * kBlock);
      const Buffer b(k8 * kBlock * kNR);
      const Buffer c(kMR * kNR);
      const double seconds = best_of(
          [&] { k.multiply(a.data(), b.data(), c.data(), rows, k8, false, b.data(), 1); }, 20'000);
      fmt::print("product {} x 16, depth {:3}: {:.1f} GFLOP/s\n", rows, k8 * kBlock,
                 2e-9 * rows * kNR * static_cast<double>(k8) * kBlock / seconds);
    }
  for (const int m : {2, 4, 6}) {
    const size_t frequency = 2 * kMR * kNR + 16;
    const Buffer maps(100 * 100 * kBlock);
    const Buffer v(64 * frequency);
    const Buffer bias(kBlock);
    const double in = best_of(
        [&] {
          k.transform_input({m, m}, maps.data(), 80, v.data(), frequency, maps.data());
        },
        10'000);
    const double out = best_of(
        [&] {
          k.transform_output({m, m}, v.data(), frequency, bias.data(), true, false,
                             {maps.data(), 640, m, m});
        },
        10'000);
    fmt::print("F({0}x{0}) transforms of 8 channels: input {1:.0f} ns, output {2:.0f} ns\n", m,
               in * 1e9, out * 1e9);
  }
  constexpr int kPixels = 144;
  const Buffer planes(3 * 3 * (kPixels + 8));
  const Buffer weights(27 * kNR);
  const Buffer out(2 * kPixels * kBlock);
  const double row = best_of(
      [&] {
        k.convolve_row(planes.data(), 3, 3 * (kPixels + 8), kPixels + 8, weights.data(),
                       weights.data(), true, kPixels, out.data(), out.data() + kPixels * kBlock);
      },
      10'000);
  fmt::print("first layer, 3 channels: {:.1f} GFLOP/s\n", 2e-9 * 27 * kNR * kPixels / row);
  return 0;
}
