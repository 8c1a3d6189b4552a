#include "engine/kernels.h"

// Highway compiles this file once for each instruction set.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/kernels.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h

#include <hwy/highway.h>

#include <hwy/cache_control.h>

#include <algorithm>
#include <limits>
#include <type_traits>

#include "engine/winograd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace graft::engine::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// At most 8 lanes: the layout's block. Fewer lanes loop over parts of the block, so the code is
// right from one lane up.
using D = hn::CappedTag<float, kBlock>;
using V = hn::Vec<D>;

// Accumulators have names because g++ 12 keeps arrays of them in memory (65 instead of 92 GFLOP/s;
// bench/kernels_bench prints the rate). k goes by 8, the channels that a panel of inputs keeps
// together.
template <int kLines, int kRows>
HWY_INLINE void MultiplyPart(const float* HWY_RESTRICT a, const float* HWY_RESTRICT b,
                             float* HWY_RESTRICT c, size_t k8, bool accumulate, const float* next) {
  const D d;
  const size_t lanes = hn::Lanes(d);
  V c00, c01, c10, c11, c20, c21, c30, c31, c40, c41, c50, c51;
  c00 = c01 = c10 = c11 = c20 = c21 = c30 = c31 = c40 = c41 = c50 = c51 = hn::Zero(d);
  if (accumulate) {
    c00 = hn::Load(d, c), c01 = hn::Load(d, c + lanes);
    c10 = hn::Load(d, c + 16), c11 = hn::Load(d, c + 16 + lanes);
    if constexpr (kRows > 2) {
      c20 = hn::Load(d, c + 32), c21 = hn::Load(d, c + 32 + lanes);
      c30 = hn::Load(d, c + 48), c31 = hn::Load(d, c + 48 + lanes);
    }
    if constexpr (kRows > 4) {
      c40 = hn::Load(d, c + 64), c41 = hn::Load(d, c + 64 + lanes);
      c50 = hn::Load(d, c + 80), c51 = hn::Load(d, c + 80 + lanes);
    }
  }
  for (; k8 > 0; --k8, a += kMR * kBlock, b += kBlock * kNR) {
#define GRAFT_STEP(k)                                             \
  do {                                                            \
    if constexpr (kLines > 0) {                                   \
      if ((k) % (8 / kLines) == 0) {                              \
        hwy::Prefetch(next);                                      \
        next += 16;                                               \
      }                                                           \
    }                                                             \
    const V b0 = hn::Load(d, b + (k)*kNR);                        \
    const V b1 = hn::Load(d, b + (k)*kNR + lanes);                \
    V x = hn::Set(d, a[(k)]);                                     \
    c00 = hn::MulAdd(x, b0, c00), c01 = hn::MulAdd(x, b1, c01);   \
    x = hn::Set(d, a[8 + (k)]);                                   \
    c10 = hn::MulAdd(x, b0, c10), c11 = hn::MulAdd(x, b1, c11);   \
    if constexpr (kRows > 2) {                                    \
      x = hn::Set(d, a[16 + (k)]);                                \
      c20 = hn::MulAdd(x, b0, c20), c21 = hn::MulAdd(x, b1, c21); \
      x = hn::Set(d, a[24 + (k)]);                                \
      c30 = hn::MulAdd(x, b0, c30), c31 = hn::MulAdd(x, b1, c31); \
    }                                                             \
    if constexpr (kRows > 4) {                                    \
      x = hn::Set(d, a[32 + (k)]);                                \
      c40 = hn::MulAdd(x, b0, c40), c41 = hn::MulAdd(x, b1, c41); \
      x = hn::Set(d, a[40 + (k)]);                                \
      c50 = hn::MulAdd(x, b0, c50), c51 = hn::MulAdd(x, b1, c51); \
    }                                                             \
  } while (false)
    GRAFT_STEP(0);
    GRAFT_STEP(1);
    GRAFT_STEP(2);
    GRAFT_STEP(3);
    GRAFT_STEP(4);
    GRAFT_STEP(5);
    GRAFT_STEP(6);
    GRAFT_STEP(7);
#undef GRAFT_STEP
  }
  hn::Store(c00, d, c), hn::Store(c01, d, c + lanes);
  hn::Store(c10, d, c + 16), hn::Store(c11, d, c + 16 + lanes);
  if constexpr (kRows > 2) {
    hn::Store(c20, d, c + 32), hn::Store(c21, d, c + 32 + lanes);
    hn::Store(c30, d, c + 48), hn::Store(c31, d, c + 48 + lanes);
  }
  if constexpr (kRows > 4) {
    hn::Store(c40, d, c + 64), hn::Store(c41, d, c + 64 + lanes);
    hn::Store(c50, d, c + 80), hn::Store(c51, d, c + 80 + lanes);
  }
}

template <int kRows>
void MultiplyRows(const float* a, const float* b, float* c, size_t k8, bool accumulate,
                  const float* next, int lines) {
  const size_t step = 2 * hn::Lanes(D());
  for (size_t o = 0; o < kNR; o += step) {
    switch (lines) {
      case 0:
        MultiplyPart<0, kRows>(a, b + o, c + o, k8, accumulate, next);
        break;
      case 1:
        MultiplyPart<1, kRows>(a, b + o, c + o, k8, accumulate, next);
        break;
      case 2:
        MultiplyPart<2, kRows>(a, b + o, c + o, k8, accumulate, next);
        break;
      case 4:
        MultiplyPart<4, kRows>(a, b + o, c + o, k8, accumulate, next);
        break;
      default:
        MultiplyPart<8, kRows>(a, b + o, c + o, k8, accumulate, next);
    }
  }
}

void Multiply(const float* a, const float* b, float* c, int rows, size_t k8, bool accumulate,
              const float* next, int lines) {
  if (rows > 4)
    MultiplyRows<6>(a, b, c, k8, accumulate, next, lines);
  else if (rows > 2)
    MultiplyRows<4>(a, b, c, k8, accumulate, next, lines);
  else
    MultiplyRows<2>(a, b, c, k8, accumulate, next, lines);
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
  // A row of m + 2 pixels of 8 floats is (m + 2) / 2 cache lines; those of the halo were read by
  // the tile to the left.
  for (int i = 0; i < m.rows + 2; ++i, next += row)
    for (int line = 1; line <= m.columns / 2; ++line) hwy::Prefetch(next + line * 16);
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

void ConvolveRow(const float* in, int channels, ptrdiff_t plane, ptrdiff_t row,
                 const float* weights, const float* bias, bool relu, int pixels, float* out0,
                 float* out1) {
  const D d;
  for (size_t o = 0; o < kBlock; o += hn::Lanes(d)) {
    for (int x = 0; x < pixels; x += kMR) {
      V c00, c01, c10, c11, c20, c21, c30, c31, c40, c41, c50, c51;
      c00 = c10 = c20 = c30 = c40 = c50 = hn::Load(d, bias + o);
      c01 = c11 = c21 = c31 = c41 = c51 = hn::Load(d, bias + kBlock + o);
      const float* w = weights + o;
      for (int c = 0; c < channels; ++c)
        for (int r = 0; r < 3; ++r) {
          const float* s = in + c * plane + r * row + x;
#define GRAFT_TAP(k)                                            \
  do {                                                          \
    const V w0 = hn::Load(d, w + (k)*kNR);                      \
    const V w1 = hn::Load(d, w + (k)*kNR + kBlock);             \
    V a = hn::Set(d, s[(k)]);                                   \
    c00 = hn::MulAdd(a, w0, c00), c01 = hn::MulAdd(a, w1, c01); \
    a = hn::Set(d, s[(k) + 1]);                                 \
    c10 = hn::MulAdd(a, w0, c10), c11 = hn::MulAdd(a, w1, c11); \
    a = hn::Set(d, s[(k) + 2]);                                 \
    c20 = hn::MulAdd(a, w0, c20), c21 = hn::MulAdd(a, w1, c21); \
    a = hn::Set(d, s[(k) + 3]);                                 \
    c30 = hn::MulAdd(a, w0, c30), c31 = hn::MulAdd(a, w1, c31); \
    a = hn::Set(d, s[(k) + 4]);                                 \
    c40 = hn::MulAdd(a, w0, c40), c41 = hn::MulAdd(a, w1, c41); \
    a = hn::Set(d, s[(k) + 5]);                                 \
    c50 = hn::MulAdd(a, w0, c50), c51 = hn::MulAdd(a, w1, c51); \
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
      float* q = out1 + static_cast<ptrdiff_t>(x) * kBlock + o;
      hn::Store(hn::Max(floor, c00), d, p), hn::Store(hn::Max(floor, c01), d, q);
      hn::Store(hn::Max(floor, c10), d, p + 8), hn::Store(hn::Max(floor, c11), d, q + 8);
      hn::Store(hn::Max(floor, c20), d, p + 16), hn::Store(hn::Max(floor, c21), d, q + 16);
      hn::Store(hn::Max(floor, c30), d, p + 24), hn::Store(hn::Max(floor, c31), d, q + 24);
      hn::Store(hn::Max(floor, c40), d, p + 32), hn::Store(hn::Max(floor, c41), d, q + 32);
      hn::Store(hn::Max(floor, c50), d, p + 40), hn::Store(hn::Max(floor, c51), d, q + 40);
    }
  }
}

const Kernels* Table() {
  static const Kernels kTable = {hwy::TargetName(HWY_TARGET), Multiply, TransformInput,
                                 TransformOutput, ConvolveRow};
  return &kTable;
}

}  // namespace graft::engine::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace graft::engine {

HWY_EXPORT(Table);

const Kernels& kernels() {
  static const Kernels& kBest = *HWY_DYNAMIC_DISPATCH(Table)();
  return kBest;
}

KernelTargets kernel_targets() {
#ifdef HWY_COMPILE_ONLY_STATIC
  return {{&kernels()}, {}};
#else
  KernelTargets targets;
  const int64_t usable = hwy::SupportedTargets();
  for (int64_t bits = HWY_TARGETS; bits != 0; bits &= bits - 1) {
    const int64_t target = bits & -bits;
    if ((usable & target) == 0) {
      targets.skipped.emplace_back(hwy::TargetName(target));
      continue;
    }
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    targets.usable.push_back(HWY_DYNAMIC_DISPATCH(Table)());
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  return targets;
#endif
}

}  // namespace graft::engine
#endif
