#include "engine/machine.h"

#include <algorithm>
#include <chrono>
#include <functional>

#include "engine/buffer.h"
#include "engine/kernels.h"
#include "engine/team.h"

namespace graft {
namespace {

/// Best of several timed runs of a team, in seconds.
double best_of(engine::Team& team, int runs,
               const std::function<void(engine::Team::Member&)>& body) {
  double best = 1e9;
  for (int i = 0; i < runs; ++i) {
    const auto start = std::chrono::steady_clock::now();
    team.run(body);
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    best = std::min(best, taken.count());
  }
  return best;
}

/// The product kernel on data in the first-level cache, which reaches the FMA units' peak.
double measure_flops(int threads) {
  constexpr int kDepthBlocks = 16;
  constexpr int kCalls = 30'000;
  engine::Team team(threads);
  const double seconds = best_of(team, 5, [&](engine::Team::Member&) {
    const engine::Buffer a(kDepthBlocks * engine::kTiles * engine::kBlock);
    const engine::Buffer b(kDepthBlocks * engine::kBlock * engine::kOutputs);
    const engine::Buffer c(engine::kTiles * engine::kOutputs);
    for (int i = 0; i < kCalls; ++i)
      engine::kernels().multiply(a.data(), b.data(), c.data(), engine::kTiles, kDepthBlocks, false,
                                 b.data(), 0);
  });
  const double operations =
      2.0 * engine::kTiles * engine::kOutputs * engine::kBlock * kDepthBlocks * kCalls;
  return operations * threads / seconds;
}

double measure_bandwidth(int threads) {
  constexpr size_t kFloats = size_t{64} << 20U;  // 256 MB, past any cache
  const engine::Buffer memory(kFloats);
  std::fill_n(memory.data(), kFloats, 1.0F);  // pages that were never written to share one page
  engine::Team team(threads);
  const double seconds = best_of(team, 4, [&](engine::Team::Member& member) {
    const size_t share = kFloats / static_cast<size_t>(threads) / 64 * 64;
    const float* from = memory.data() + share * static_cast<size_t>(member.index());
    float sums[64] = {};
    for (size_t i = 0; i < share; i += 64)
      for (size_t k = 0; k < 64; ++k) sums[k] += from[i + k];
    volatile float keep = sums[0] + sums[63];
    (void)keep;
  });
  return static_cast<double>(kFloats) * sizeof(float) / seconds;
}

}  // namespace

MachineLimits measure_machine(int threads) {
  return {measure_flops(1), measure_flops(threads), measure_bandwidth(threads)};
}

}  // namespace graft
