#include "graft/speed.h"

// Highway compiles this file once for each instruction set.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/machine.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h

#include <hwy/highway.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>

#include "engine/buffer.h"
#include "engine/team.h"

HWY_BEFORE_NAMESPACE();
namespace graft::engine::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// The widest vector that there is, unlike the kernels' own, so that these are not measured by
// themselves.
using Widest = hn::ScalableTag<float>;

int WidestLanes() { return static_cast<int>(hn::Lanes(Widest())); }

/// `rounds` of twelve multiply-adds that do not depend on each other: two units of a latency of
/// four to five cycles need eight to ten in flight, and sixteen registers hold twelve sums and the
/// factors. Returns something that depends on all of them.
float MultiplyAdds(int64_t rounds, float factor, float term) {
  const Widest d;
  const auto f = hn::Set(d, factor);
  const auto t = hn::Set(d, term);
  // Names, not an array: g++ 12 keeps arrays in memory. Each starts elsewhere, or they would all be
  // one to the compiler.
  auto a = t;
  auto b = hn::Mul(a, f), c = hn::Mul(b, f), e = hn::Mul(c, f), g = hn::Mul(e, f);
  auto h = hn::Mul(g, f), i = hn::Mul(h, f), j = hn::Mul(i, f), k = hn::Mul(j, f);
  auto l = hn::Mul(k, f), m = hn::Mul(l, f), n = hn::Mul(m, f);
  for (int64_t round = 0; round < rounds; ++round) {
    a = hn::MulAdd(a, f, t), b = hn::MulAdd(b, f, t), c = hn::MulAdd(c, f, t);
    e = hn::MulAdd(e, f, t), g = hn::MulAdd(g, f, t), h = hn::MulAdd(h, f, t);
    i = hn::MulAdd(i, f, t), j = hn::MulAdd(j, f, t), k = hn::MulAdd(k, f, t);
    l = hn::MulAdd(l, f, t), m = hn::MulAdd(m, f, t), n = hn::MulAdd(n, f, t);
  }
  const auto sum =
      hn::Add(hn::Add(hn::Add(a, b), hn::Add(c, e)), hn::Add(hn::Add(g, h), hn::Add(i, j)));
  return hn::GetLane(hn::Add(sum, hn::Add(hn::Add(k, l), hn::Add(m, n))));
}

}  // namespace graft::engine::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace graft {
namespace engine {
namespace {

HWY_EXPORT(WidestLanes);
HWY_EXPORT(MultiplyAdds);

int widest_lanes() { return HWY_DYNAMIC_DISPATCH(WidestLanes)(); }

float multiply_adds(int64_t rounds, float factor, float term) {
  return HWY_DYNAMIC_DISPATCH(MultiplyAdds)(rounds, factor, term);
}

}  // namespace
}  // namespace engine

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

double measure_flops(int threads, int lanes) {
  constexpr int64_t kRounds = 2'000'000;  // of six cycles at least: some milliseconds
  constexpr double kSums = 12;            // of MultiplyAdds
  engine::Team team(threads);
  // The best of several, as neighbours on the same machine only ever slow a run down.
  const double seconds = best_of(team, 8, [&](engine::Team::Member&) {
    // Unknown to the compiler; the sums stay near 1.
    volatile float factor = 0.5F;
    volatile float keep = 0;
    keep = engine::multiply_adds(kRounds, factor, factor);
    (void)keep;
  });
  return 2 * kSums * lanes * static_cast<double>(kRounds) * team.size() / seconds;
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

MachineLimits measure_machine(int threads) {
  const int lanes = engine::widest_lanes();
  return {lanes, measure_flops(1, lanes), measure_flops(threads, lanes),
          measure_bandwidth(threads)};
}

}  // namespace graft
#endif
