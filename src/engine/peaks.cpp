#include "engine/peaks.h"

#include "engine/kernels.h"
#include "engine/tile_kernels.h"

// Highway compiles this file once for each instruction set.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/peaks.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h

#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace graft::engine::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Widest = hn::ScalableTag<float>;

int WidestLanes() { return static_cast<int>(hn::Lanes(Widest())); }

/// `rounds` of twelve multiply-adds that do not depend on each other: two units of a latency of
/// four to five cycles need eight to ten in flight, and sixteen registers hold twelve sums and the
/// factors.
float MultiplyAdds(int64_t rounds, float value) {
  const Widest d;
  const auto f = hn::Set(d, value);
  const auto t = f;
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

/// This instruction set's loop.
const PeakLoop* Loop() {
  static const PeakLoop kLoop = {nullptr, Precision::fp32, WidestLanes(), 2.0 * 12 * WidestLanes(),
                                 [] {},   [] {},           MultiplyAdds};
  return &kLoop;
}

}  // namespace graft::engine::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace graft::engine {

HWY_EXPORT(Loop);

namespace {

#if defined(__x86_64__)

/// Twelve chains, as above: on processors that do one such operation a cycle, or two.
__attribute__((target("avx512f,avx512bf16"))) float multiply_pairs(int64_t rounds, float value) {
  const __m512 v = _mm512_set1_ps(value);
  const __m512bh f = _mm512_cvtne2ps_pbh(v, v);
  __m512 a = v, b = v + a, c = v + b, d = v + c, e = v + d, g = v + e;
  __m512 h = v + g, i = v + h, j = v + i, k = v + j, l = v + k, m = v + l;
  for (int64_t round = 0; round < rounds; ++round) {
    a = _mm512_dpbf16_ps(a, f, f), b = _mm512_dpbf16_ps(b, f, f), c = _mm512_dpbf16_ps(c, f, f);
    d = _mm512_dpbf16_ps(d, f, f), e = _mm512_dpbf16_ps(e, f, f), g = _mm512_dpbf16_ps(g, f, f);
    h = _mm512_dpbf16_ps(h, f, f), i = _mm512_dpbf16_ps(i, f, f), j = _mm512_dpbf16_ps(j, f, f);
    k = _mm512_dpbf16_ps(k, f, f), l = _mm512_dpbf16_ps(l, f, f), m = _mm512_dpbf16_ps(m, f, f);
  }
  return (a + b + c + d + e + g + h + i + j + k + l + m)[0];
}

/// Four products of tiles, each on sums of its own.
float multiply_tiles(int64_t rounds, float /*value*/) {
  for (int64_t round = 0; round < rounds; ++round)
    asm volatile(
        "tdpbf16ps %%tmm6, %%tmm4, %%tmm0\n\t"
        "tdpbf16ps %%tmm7, %%tmm4, %%tmm1\n\t"
        "tdpbf16ps %%tmm6, %%tmm5, %%tmm2\n\t"
        "tdpbf16ps %%tmm7, %%tmm5, %%tmm3" ::
            : "memory");
  return 0;
}

#endif

}  // namespace

std::vector<PeakLoop> peak_loops() {
  std::vector<PeakLoop> loops;
  for_each_target([&](const Kernels& kernels) {
    loops.push_back(*HWY_DYNAMIC_DISPATCH(Loop)());
    loops.back().instructions = kernels.target;
  });
#if defined(__x86_64__)
  if (avx512_bf16_kernels() != nullptr)
    loops.push_back({avx512_bf16_kernels()->name, Precision::bf16, 32, 2.0 * 12 * 32, [] {}, [] {},
                     multiply_pairs});
  if (const TileKernels* amx = amx_kernels())
    loops.push_back({amx->name, Precision::bf16, kTilePixels * kTilePixels,
                     2.0 * 4 * kTilePixels * kTilePixels * kTileChannels,
                     [] { amx_kernels()->enter(kTilePixels); }, [] { amx_kernels()->leave(); },
                     multiply_tiles});
#endif
  return loops;
}

}  // namespace graft::engine
#endif
