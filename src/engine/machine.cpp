#include "graft/speed.h"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>

#include "engine/buffer.h"
#include "engine/kernels.h"
#include "engine/peaks.h"
#include "engine/team.h"
#include "engine/tile_kernels.h"

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

double measure_flops(const engine::PeakLoop& loop, int threads) {
  constexpr double kOperations = 2e8;  // of a vector of eight: some milliseconds
  const auto rounds = static_cast<int64_t>(kOperations * loop.lanes / 8 / loop.operations);
  engine::Team team(threads);
  // The best of several, as neighbours on the same machine only ever slow a run down.
  const double seconds = best_of(team, 8, [&](engine::Team::Member&) {
    // Unknown to the compiler; sums stay near 1, or grow slowly.
    volatile float value = 0.5F;
    volatile float keep = 0;
    loop.enter();
    keep = loop.run(rounds, value);
    loop.leave();
    (void)keep;
  });
  return loop.operations * static_cast<double>(rounds) * team.size() / seconds;
}

double measure_bandwidth(int threads) {
  constexpr size_t kFloats = size_t{64} << 20U;  // 256 MB, past most caches
  const engine::Buffer memory(kFloats);
  std::fill_n(memory.data(), kFloats, 1.0F);  // pages that were never written to share one page
  engine::Team team(threads);
  // Fewer runs than above, since each is longer.
  const double seconds = best_of(team, 4, [&](engine::Team::Member& member) {
    const size_t share = kFloats / static_cast<size_t>(member.team_size()) / 64 * 64;
    const float* from = memory.data() + share * static_cast<size_t>(member.index());
    float sums[64] = {};  // so many that additions do not wait for each other
    for (size_t i = 0; i < share; i += 64)
      for (size_t k = 0; k < 64; ++k) sums[k] += from[i + k];
    volatile float keep = sums[0] + sums[63];
    (void)keep;
  });
  return static_cast<double>(kFloats) * sizeof(float) / seconds;
}

}  // namespace

const Peak* MachineLimits::peak(std::string_view instructions) const {
  const auto at = std::find_if(peaks.begin(), peaks.end(),
                               [&](const Peak& p) { return p.instructions == instructions; });
  return at == peaks.end() ? nullptr : &*at;
}

MachineLimits measure_machine(int threads) {
  MachineLimits machine;
  for (const engine::PeakLoop& loop : engine::peak_loops())
    machine.peaks.push_back({loop.instructions, loop.precision, loop.lanes, measure_flops(loop, 1),
                             measure_flops(loop, threads)});
  machine.bytes_all = measure_bandwidth(threads);
  return machine;
}

}  // namespace graft
