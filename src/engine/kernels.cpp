#include "engine/kernels.h"

// Highway compiles this file once for each instruction set.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/kernels.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h

#include <hwy/highway.h>

#include <hwy/cache_control.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "base/fail.h"
#include "base/words.h"
#include "engine/tile_kernels.h"
#include "engine/winograd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace graft::engine::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

static_assert(kBlock <= kMostBlock && kMR <= kMostMR && kNR <= kMostNR && kNR == 2 * kBlock);
using D = hn::CappedTag<float, kBlock>;
using V = hn::Vec<D>;

// Accumulators have names because g++ 12 keeps arrays of them in memory (65 instead of 92 GFLOP/s;
// bench/kernels_bench prints the rate). k goes by 8.
// kBoth: both vectors of a panel's row, else the left one alone.
template <int kSpread, int kRows, bool kBoth>
HWY_INLINE void MultiplyPart(const float* HWY_RESTRICT a, const float* HWY_RESTRICT b,
                             float* HWY_RESTRICT c, size_t blocks, bool accumulate,
                             const float* next) {
  const D d;
  const size_t lanes = hn::Lanes(d);
#define GRAFT_ROWS(ROW)         \
  do {                          \
    ROW(0, c00, c01);           \
    ROW(1, c10, c11);           \
    if constexpr (kRows > 2) {  \
      ROW(2, c20, c21);         \
      ROW(3, c30, c31);         \
    }                           \
    if constexpr (kRows > 4) {  \
      ROW(4, c40, c41);         \
      ROW(5, c50, c51);         \
    }                           \
    if constexpr (kRows > 6) {  \
      ROW(6, c60, c61);         \
      ROW(7, c70, c71);         \
    }                           \
    if constexpr (kRows > 8) {  \
      ROW(8, c80, c81);         \
      ROW(9, c90, c91);         \
    }                           \
    if constexpr (kRows > 10) { \
      ROW(10, ca0, ca1);        \
      ROW(11, cb0, cb1);        \
    }                           \
  } while (false)
#define GRAFT_TAKE(row, left, right)   \
  (left) = hn::Load(d, c + (row)*kNR); \
  if constexpr (kBoth) (right) = hn::Load(d, c + (row)*kNR + lanes)
#define GRAFT_GIVE(row, left, right) \
  hn::Store(left, d, c + (row)*kNR); \
  if constexpr (kBoth) hn::Store(right, d, c + (row)*kNR + lanes)
#define GRAFT_ADD(row, left, right)                                   \
  x = hn::Set(d, at[(row)*kBlock]), (left) = hn::MulAdd(x, b0, left); \
  if constexpr (kBoth) (right) = hn::MulAdd(x, b1, right)
#define GRAFT_STEP(k)                                                          \
  do {                                                                         \
    if constexpr (kSpread > 0) {                                               \
      if ((k) % kSpread == 0) {                                                \
        for (int line = 0; line < kNR; line += 16) hwy::Prefetch(next + line); \
        next += kNR;                                                           \
      }                                                                        \
    }                                                                          \
    const float* at = a + part + (k);                                          \
    const V b0 = hn::Load(d, b + (k)*kNR);                                     \
    const V b1 = kBoth ? hn::Load(d, b + (k)*kNR + lanes) : b0;                \
    V x;                                                                       \
    GRAFT_ROWS(GRAFT_ADD);                                                     \
  } while (false)
  V c00, c01, c10, c11, c20, c21, c30, c31, c40, c41, c50, c51, c60, c61, c70, c71, c80, c81, c90,
      c91, ca0, ca1, cb0, cb1;
  c00 = c01 = c10 = c11 = c20 = c21 = c30 = c31 = c40 = c41 = c50 = c51 = c60 = c61 = c70 = c71 =
      c80 = c81 = c90 = c91 = ca0 = ca1 = cb0 = cb1 = hn::Zero(d);
  if (accumulate) GRAFT_ROWS(GRAFT_TAKE);
  for (; blocks > 0; --blocks, a += kMR * kBlock)
    for (int part = 0; part < kBlock; part += 8, b += 8 * kNR) {
      GRAFT_STEP(0);
      GRAFT_STEP(1);
      GRAFT_STEP(2);
      GRAFT_STEP(3);
      GRAFT_STEP(4);
      GRAFT_STEP(5);
      GRAFT_STEP(6);
      GRAFT_STEP(7);
    }
  GRAFT_ROWS(GRAFT_GIVE);
#undef GRAFT_STEP
#undef GRAFT_ADD
#undef GRAFT_GIVE
#undef GRAFT_TAKE
#undef GRAFT_ROWS
}

template <int kRows, bool kBoth>
void MultiplyRows(const float* a, const float* b, float* c, size_t blocks, bool accumulate,
                  const float* next, int spread) {
  switch (spread) {
    case 0:
      MultiplyPart<0, kRows, kBoth>(a, b, c, blocks, accumulate, next);
      break;
    case 1:
      MultiplyPart<1, kRows, kBoth>(a, b, c, blocks, accumulate, next);
      break;
    case 2:
      MultiplyPart<2, kRows, kBoth>(a, b, c, blocks, accumulate, next);
      break;
    case 4:
      MultiplyPart<4, kRows, kBoth>(a, b, c, blocks, accumulate, next);
      break;
    default:
      MultiplyPart<8, kRows, kBoth>(a, b, c, blocks, accumulate, next);
  }
}

template <int kRows = kMR>
void Multiply(const float* a, const float* b, float* c, int rows, int columns, size_t blocks,
              bool accumulate, const float* next, int spread) {
  if constexpr (kRows > 2) {
    if (rows <= kRows - 2) {
      Multiply<kRows - 2>(a, b, c, rows, columns, blocks, accumulate, next, spread);
      return;
    }
  }
  const auto lanes = static_cast<int>(hn::Lanes(D()));
  int o = 0;
  for (; o + 2 * lanes <= columns; o += 2 * lanes)
    MultiplyRows<kRows, true>(a, b + o, c + o, blocks, accumulate, next, spread);
  if (o < columns) MultiplyRows<kRows, false>(a, b + o, c + o, blocks, accumulate, next, spread);
}

template <int R, int C>
struct InputTile {
  static void Run(const float* d, ptrdiff_t row, float* v, size_t stride) {
    const D tag;
    V t[R + 2][C + 2];
    for (int i = 0; i < R + 2; ++i) {
      V x[C + 2];
      for (int j = 0; j < C + 2; ++j) x[j] = hn::Load(tag, d + i * row + j * kBlock);
      Winograd<C>::InputRow(x, t[i]);
    }
    for (int j = 0; j < C + 2; ++j) {
      V x[R + 2], o[R + 2];
      for (int i = 0; i < R + 2; ++i) x[i] = t[i][j];
      Winograd<R>::InputRow(x, o);
      for (int i = 0; i < R + 2; ++i) hn::Store(o[i], tag, v + (i * (C + 2) + j) * stride);
    }
  }
};

/// Calls Tile<R, C>::Run for the tile size.
template <template <int, int> class Tile, class... Arguments>
HWY_INLINE void ForSize(TileSize m, Arguments... arguments) {
  const auto columns = [&](auto rows) {
    if (m.columns == 6)
      Tile<decltype(rows)::value, 6>::Run(arguments...);
    else if (m.columns == 4)
      Tile<decltype(rows)::value, 4>::Run(arguments...);
    else
      Tile<decltype(rows)::value, 2>::Run(arguments...);
  };
  if (m.rows == 6)
    columns(std::integral_constant<int, 6>());
  else if (m.rows == 4)
    columns(std::integral_constant<int, 4>());
  else
    columns(std::integral_constant<int, 2>());
}

void TransformInput(TileSize m, const float* d, ptrdiff_t row, float* v, size_t stride,
                    const float* next) {
  // The two pixels of the halo were read by the tile to the left.
  for (int i = 0; i < m.rows + 2; ++i, next += row)
    for (int at = 2 * kBlock; at < (m.columns + 2) * kBlock; at += 16) hwy::Prefetch(next + at);
  for (size_t part = 0; part < kBlock; part += hn::Lanes(D()))
    ForSize<InputTile>(m, d + part, row, v + part, stride);
}

template <int R, int C>
struct OutputTilePart {
  static void Run(const float* p, size_t stride, const float* bias, bool relu, bool pool,
                  const OutputTile* tile, size_t part) {
    const D tag;
    V t[R][C + 2];
    for (int j = 0; j < C + 2; ++j) {
      V x[R + 2], o[R];
      for (int i = 0; i < R + 2; ++i) x[i] = hn::Load(tag, p + (i * (C + 2) + j) * stride);
      Winograd<R>::OutputRow(x, o);
      for (int i = 0; i < R; ++i) t[i][j] = o[i];
    }
    const V shift = hn::Load(tag, bias + part);
    // Without a ReLU the same Max lets everything through. The floor comes first: x86's Max gives
    // its second operand where one is NaN, and what overflows must not become a zero.
    const V floor = relu ? hn::Zero(tag) : hn::Set(tag, -std::numeric_limits<float>::infinity());
    float* target = tile->target + part;
    const int rows = std::min(R, tile->valid_rows);
    const int columns = std::min(C, tile->valid_columns);
    if (!pool) {
      for (int i = 0; i < rows; ++i, target += tile->row) {
        V o[C];
        Winograd<C>::OutputRow(t[i], o);
        if (columns == C) {
          for (int j = 0; j < C; ++j)
            hn::Store(hn::Max(floor, hn::Add(o[j], shift)), tag, target + j * kBlock);
        } else {
          for (int j = 0; j < columns; ++j)
            hn::Store(hn::Max(floor, hn::Add(o[j], shift)), tag, target + j * kBlock);
        }
      }
      return;
    }
    // Maximum first: adding the bias and ReLU are monotonous.
    for (int i = 0; i + 1 < rows; i += 2, target += tile->row) {
      V o[C], q[C], r[C / 2];
      Winograd<C>::OutputRow(t[i], o);
      Winograd<C>::OutputRow(t[i + 1], q);
      for (int j = 0; j < C / 2; ++j)
        r[j] = hn::Max(hn::Max(o[2 * j], o[2 * j + 1]), hn::Max(q[2 * j], q[2 * j + 1]));
      for (int j = 0; 2 * j + 1 < columns; ++j)
        hn::Store(hn::Max(floor, hn::Add(r[j], shift)), tag, target + j * kBlock);
    }
  }
};

void TransformOutput(TileSize m, const float* p, size_t stride, const float* bias, bool relu,
                     bool pool, const OutputTile& tile) {
  for (size_t part = 0; part < kBlock; part += hn::Lanes(D()))
    ForSize<OutputTilePart>(m, p + part, stride, bias, relu, pool, &tile, part);
}

template <bool kBoth>
void ConvolveRowPart(const float* in, int channels, ptrdiff_t plane, ptrdiff_t row,
                     const float* weights, const float* bias, bool relu, int pixels, float* out0,
                     float* out1) {
  const D d;
  for (size_t o = 0; o < kBlock; o += hn::Lanes(d)) {
    for (int x = 0; x < pixels; x += kRowPixels) {
      V c00, c01, c10, c11, c20, c21, c30, c31, c40, c41, c50, c51;
      c00 = c10 = c20 = c30 = c40 = c50 = hn::Load(d, bias + o);
      c01 = c11 = c21 = c31 = c41 = c51 = hn::Load(d, bias + kBlock + o);
      const float* w = weights + o;
      for (int c = 0; c < channels; ++c)
        for (int r = 0; r < 3; ++r) {
          const float* s = in + c * plane + r * row + x;
#define GRAFT_TAP(k)                                             \
  do {                                                           \
    const V w0 = hn::Load(d, w + (k)*kNR);                       \
    const V w1 = kBoth ? hn::Load(d, w + (k)*kNR + kBlock) : w0; \
    V a = hn::Set(d, s[(k)]);                                    \
    c00 = hn::MulAdd(a, w0, c00);                                \
    if constexpr (kBoth) c01 = hn::MulAdd(a, w1, c01);           \
    a = hn::Set(d, s[(k) + 1]);                                  \
    c10 = hn::MulAdd(a, w0, c10);                                \
    if constexpr (kBoth) c11 = hn::MulAdd(a, w1, c11);           \
    a = hn::Set(d, s[(k) + 2]);                                  \
    c20 = hn::MulAdd(a, w0, c20);                                \
    if constexpr (kBoth) c21 = hn::MulAdd(a, w1, c21);           \
    a = hn::Set(d, s[(k) + 3]);                                  \
    c30 = hn::MulAdd(a, w0, c30);                                \
    if constexpr (kBoth) c31 = hn::MulAdd(a, w1, c31);           \
    a = hn::Set(d, s[(k) + 4]);                                  \
    c40 = hn::MulAdd(a, w0, c40);                                \
    if constexpr (kBoth) c41 = hn::MulAdd(a, w1, c41);           \
    a = hn::Set(d, s[(k) + 5]);                                  \
    c50 = hn::MulAdd(a, w0, c50);                                \
    if constexpr (kBoth) c51 = hn::MulAdd(a, w1, c51);           \
  } while (false)
          // The fences keep the compiler from saving loads of shared pixels at the price of spilled
          // accumulators (60 instead of 90 GFLOP/s; bench/kernels_bench prints the rate).
          GRAFT_TAP(0);
          HWY_FENCE;
          GRAFT_TAP(1);
          HWY_FENCE;
          GRAFT_TAP(2);
          HWY_FENCE;
#undef GRAFT_TAP
          w += 3 * kNR;
        }
      const V floor = relu ? hn::Zero(d)  // as in OutputTilePart
                           : hn::Set(d, -std::numeric_limits<float>::infinity());
      float* p = out0 + static_cast<ptrdiff_t>(x) * kBlock + o;
      hn::Store(hn::Max(floor, c00), d, p);
      hn::Store(hn::Max(floor, c10), d, p + 1 * kBlock);
      hn::Store(hn::Max(floor, c20), d, p + 2 * kBlock);
      hn::Store(hn::Max(floor, c30), d, p + 3 * kBlock);
      hn::Store(hn::Max(floor, c40), d, p + 4 * kBlock);
      hn::Store(hn::Max(floor, c50), d, p + 5 * kBlock);
      if constexpr (kBoth) {
        float* q = out1 + static_cast<ptrdiff_t>(x) * kBlock + o;
        hn::Store(hn::Max(floor, c01), d, q);
        hn::Store(hn::Max(floor, c11), d, q + 1 * kBlock);
        hn::Store(hn::Max(floor, c21), d, q + 2 * kBlock);
        hn::Store(hn::Max(floor, c31), d, q + 3 * kBlock);
        hn::Store(hn::Max(floor, c41), d, q + 4 * kBlock);
        hn::Store(hn::Max(floor, c51), d, q + 5 * kBlock);
      }
    }
  }
}

void ConvolveRow(const float* in, int channels, ptrdiff_t plane, ptrdiff_t row,
                 const float* weights, const float* bias, bool relu, int pixels, float* out0,
                 float* out1) {
  if (out1 != nullptr)
    ConvolveRowPart<true>(in, channels, plane, row, weights, bias, relu, pixels, out0, out1);
  else
    ConvolveRowPart<false>(in, channels, plane, row, weights, bias, relu, pixels, out0, out1);
}

/// What people call it; Highway's AVX3 is AVX-512.
const char* NameOfTarget() {
  switch (HWY_TARGET) {
    case HWY_AVX3:
      return "avx512";
    case HWY_AVX2:
      return "avx2";
    case HWY_SSE4:
      return "sse4";
    case HWY_SSSE3:
      return "ssse3";
    case HWY_SCALAR:
      return "scalar";
    case HWY_NEON:
      return "neon";
    default:
      return hwy::TargetName(HWY_TARGET);
  }
}

const Kernels* Table() {
  static const Kernels kTable = {NameOfTarget(), HWY_TARGET,     kBlock,          kMR,        kNR,
                                 Multiply<>,     TransformInput, TransformOutput, ConvolveRow};
  return &kTable;
}

}  // namespace graft::engine::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace graft::engine {

HWY_EXPORT(Table);

namespace {

#ifndef HWY_COMPILE_ONLY_STATIC
/// Restricts this process to a target (0: to none) for all that Highway dispatches.
void restrict_to(int64_t target) {
  hwy::SetSupportedTargetsForTest(target);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

int64_t& restriction() {
  static int64_t target = 0;
  return target;
}
#endif

const Kernels& choose_kernels() {
  const std::string wanted = forced_target();
  std::vector<std::string> names;
  // Those for 16-bit numbers stand beside the best of the others.
  std::vector<std::string> others;
  for (const TileKernels* tiles :
       {amx_kernels(), amx_fp16_kernels(), emulated_amx_kernels(), emulated_amx_fp16_kernels()})
    if (tiles != nullptr) others.emplace_back(tiles->name);
  others.emplace_back(kRoundedTarget);
  if (wanted.empty() || std::count(others.begin(), others.end(), wanted) > 0)
    return *HWY_DYNAMIC_DISPATCH(Table)();
  for (const Kernels* table : kernel_targets().usable) {
    names.emplace_back(table->target);
    if (names.back() != wanted) continue;
#ifndef HWY_COMPILE_ONLY_STATIC
    restriction() = table->highway;
    restrict_to(table->highway);
#endif
    return *table;
  }
  names.insert(names.end(), others.begin(), others.end());
  fail(ErrorKind::usage,
       "GRAFT_TARGET: '{}' is not an instruction set of this processor{}; leave it unset, or, to "
       "test or measure, choose one of: {}",
       clipped(wanted), did_you_mean(wanted, names), fmt::join(names, ", "));
}

}  // namespace

std::string forced_target() {
  const char* wanted = std::getenv("GRAFT_TARGET");
  return wanted == nullptr ? "" : wanted;
}

const Kernels& kernels() {
  static const Kernels& kChosen = choose_kernels();
  return kChosen;
}

void for_each_target(const std::function<void(const Kernels&)>& body,
                     std::vector<std::string>* skipped) {
#ifdef HWY_COMPILE_ONLY_STATIC
  (void)skipped;
  body(*HWY_DYNAMIC_DISPATCH(Table)());
#else
  restrict_to(0);
  const int64_t usable = hwy::SupportedTargets();
  for (int64_t bits = HWY_TARGETS; bits != 0; bits &= bits - 1) {
    const int64_t target = bits & -bits;
    if ((usable & target) == 0) {
      if (skipped != nullptr) skipped->emplace_back(hwy::TargetName(target));
      continue;
    }
    restrict_to(target);
    body(*HWY_DYNAMIC_DISPATCH(Table)());
  }
  restrict_to(restriction());
#endif
}

KernelTargets kernel_targets() {
  KernelTargets targets;
  for_each_target([&](const Kernels& kernels) { targets.usable.push_back(&kernels); },
                  &targets.skipped);
  return targets;
}

}  // namespace graft::engine
#endif
