#include "train/winograd.h"

// Highway compiles this file once for each instruction set.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "train/winograd.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h

#include <hwy/highway.h>

#include <type_traits>

#include "engine/kernels.h"
#include "engine/winograd-inl.h"
#include "engine/winograd_weights.h"

HWY_BEFORE_NAMESPACE();
// Apart from kernels.cpp's, whose helpers have the same names.
namespace graft::training::winograd::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using engine::HWY_NAMESPACE::kBlock;
using engine::HWY_NAMESPACE::kMR;
using engine::HWY_NAMESPACE::kNR;
using engine::HWY_NAMESPACE::Scaled;
using engine::HWY_NAMESPACE::Winograd;

using D = hn::CappedTag<float, kBlock>;
using One = hn::CappedTag<float, 1>;
using V = hn::Vec<D>;

/// body(tag, i) for whole vectors, then for what is left one by one.
template <class Body>
HWY_INLINE void ForEach(size_t count, const Body& body) {
  const D d;
  const size_t lanes = hn::Lanes(d);
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) body(d, i);
  for (; i < count; ++i) body(One(), i);
}

template <class Tag>
HWY_INLINE hn::Vec<Tag> Pixel(Tag d, const float* pixel, size_t channel) {
  return pixel == nullptr ? hn::Zero(d) : hn::LoadU(d, pixel + channel);
}

/// o = A y: the transposes of OutputRow.
template <int M>
struct GradientRow;

template <>
struct GradientRow<3> {
  template <class T>
  static HWY_INLINE void Run(const T* y, T* o) {
    const T even = hn::Add(y[0], y[2]);
    o[0] = y[0];
    o[1] = hn::Add(even, y[1]);
    o[2] = hn::Sub(even, y[1]);
    o[3] = Scaled(2.0F, Scaled(2.0F, y[2], y[1]), y[0]);
    o[4] = y[2];
  }
};

template <>
struct GradientRow<4> {
  template <class T>
  static HWY_INLINE void Run(const T* y, T* o) {
    const T even = hn::Add(y[0], y[2]);
    const T odd = hn::Add(y[1], y[3]);
    const T even4 = Scaled(4.0F, y[2], y[0]);
    const T odd4 = Scaled(4.0F, y[3], y[1]);  // to be doubled
    o[0] = y[0];
    o[1] = hn::Add(even, odd);
    o[2] = hn::Sub(even, odd);
    o[3] = Scaled(2.0F, odd4, even4);
    o[4] = Scaled(-2.0F, odd4, even4);
    o[5] = y[3];
  }
};

template <>
struct GradientRow<6> {
  template <class T>
  static HWY_INLINE void Run(const T* y, T* o) {
    T even = hn::Add(hn::Add(y[0], y[2]), y[4]);
    T odd = hn::Add(hn::Add(y[1], y[3]), y[5]);
    o[0] = y[0];
    o[1] = hn::Add(even, odd);
    o[2] = hn::Sub(even, odd);
    even = Scaled(4.0F, Scaled(4.0F, y[4], y[2]), y[0]);
    odd = Scaled(4.0F, Scaled(4.0F, y[5], y[3]), y[1]);  // to be doubled
    o[3] = Scaled(2.0F, odd, even);
    o[4] = Scaled(-2.0F, odd, even);
    even = Scaled(4.0F, Scaled(4.0F, y[0], y[2]), y[4]);  // to be doubled
    odd = Scaled(4.0F, Scaled(4.0F, y[1], y[3]), y[5]);
    o[5] = Scaled(2.0F, even, odd);
    o[6] = Scaled(2.0F, even, hn::Neg(odd));
    o[7] = y[5];
  }
};

/// The one-dimensional steps towards the frequencies.
struct Input {
  static constexpr int kBorder = 2;
  template <int M, class T>
  static HWY_INLINE void Row(const T* x, T* o) {
    Winograd<M>::InputRow(x, o);
  }
};

struct Gradient {
  static constexpr int kBorder = 0;
  template <int M, class T>
  static HWY_INLINE void Row(const T* y, T* o) {
    GradientRow<M>::Run(y, o);
  }
};

template <class Side, int R, int C>
struct ToFrequencies {
  static void Run(const float* const* pixels, size_t channels, float* v, Place place) {
    constexpr int kRows = R + Side::kBorder;
    constexpr int kColumns = C + Side::kBorder;
    ForEach(channels, [&](auto d, size_t c) HWY_ATTR {
      using T = hn::Vec<decltype(d)>;
      T t[kRows][C + 2];
      for (int i = 0; i < kRows; ++i) {
        T x[kColumns];
        for (int j = 0; j < kColumns; ++j) x[j] = Pixel(d, pixels[i * kColumns + j], c);
        Side::template Row<C>(x, t[i]);
      }
      float* to = v + c / place.width * place.step + c % place.width;
      for (int j = 0; j < C + 2; ++j) {
        T x[kRows], o[R + 2];
        for (int i = 0; i < kRows; ++i) x[i] = t[i][j];
        Side::template Row<R>(x, o);
        for (int i = 0; i < R + 2; ++i)
          hn::StoreU(o[i], d, to + (i * (C + 2) + j) * place.frequency);
      }
    });
  }
};

template <int R, int C>
struct InputTile : ToFrequencies<Input, R, C> {};
template <int R, int C>
struct GradientTile : ToFrequencies<Gradient, R, C> {};

template <int R, int C>
struct OutputTile {
  static void Run(const float* p, size_t frequency, size_t channels, const float* bias,
                  float* const* pixels) {
    ForEach(channels, [&](auto d, size_t c) HWY_ATTR {
      using T = hn::Vec<decltype(d)>;
      T t[R][C + 2];
      for (int j = 0; j < C + 2; ++j) {
        T x[R + 2], o[R];
        for (int i = 0; i < R + 2; ++i) x[i] = hn::LoadU(d, p + (i * (C + 2) + j) * frequency + c);
        Winograd<R>::OutputRow(x, o);
        for (int i = 0; i < R; ++i) t[i][j] = o[i];
      }
      const T shift = Pixel(d, bias, c);
      for (int i = 0; i < R; ++i) {
        T o[C];
        Winograd<C>::OutputRow(t[i], o);
        for (int j = 0; j < C; ++j)
          if (float* pixel = pixels[i * C + j]; pixel != nullptr)
            hn::StoreU(hn::Add(o[j], shift), d, pixel + c);
      }
    });
  }
};

/// G of a tile, by its frequencies.
template <int M>
constexpr const auto& Points() {
  if constexpr (M == 3)
    return engine::kG3;
  else if constexpr (M == 4)
    return engine::kG4;
  else
    return engine::kG6;
}

template <int R, int C>
struct WeightsTile {
  static void Run(const float* taps, size_t tap, size_t channels, float* u, size_t frequency) {
    ForEach(channels, [&](auto d, size_t c) HWY_ATTR {
      using T = hn::Vec<decltype(d)>;
      T t[R + 2][3];
      for (int s = 0; s < 3; ++s) {
        const T g0 = hn::LoadU(d, taps + s * tap + c);
        const T g1 = hn::LoadU(d, taps + (3 + s) * tap + c);
        const T g2 = hn::LoadU(d, taps + (6 + s) * tap + c);
        for (int i = 0; i < R + 2; ++i) t[i][s] = Combined<R>(d, i, g0, g1, g2);
      }
      for (int i = 0; i < R + 2; ++i)
        for (int j = 0; j < C + 2; ++j)
          hn::StoreU(Combined<C>(d, j, t[i][0], t[i][1], t[i][2]), d,
                     u + (i * (C + 2) + j) * frequency + c);
    });
  }

 private:
  template <int M, class Tag, class T>
  static HWY_INLINE T Combined(Tag d, int row, T a, T b, T c) {
    const auto& g = Points<M>()[static_cast<size_t>(row)];
    return hn::MulAdd(hn::Set(d, static_cast<float>(g[0])), a,
                      hn::MulAdd(hn::Set(d, static_cast<float>(g[1])), b,
                                 hn::Mul(hn::Set(d, static_cast<float>(g[2])), c)));
  }
};

template <int R, int C>
struct TapsTile {
  static void Run(const float* u, size_t frequency, size_t channels, float* taps, size_t tap) {
    ForEach(channels, [&](auto d, size_t c) HWY_ATTR {
      using T = hn::Vec<decltype(d)>;
      T t[3][C + 2];
      for (int j = 0; j < C + 2; ++j) {
        t[0][j] = t[1][j] = t[2][j] = hn::Zero(d);
        for (int i = 0; i < R + 2; ++i) {
          const T value = hn::LoadU(d, u + (i * (C + 2) + j) * frequency + c);
          for (int r = 0; r < 3; ++r) t[r][j] = Added<R>(d, i, r, value, t[r][j]);
        }
      }
      for (int r = 0; r < 3; ++r)
        for (int s = 0; s < 3; ++s) {
          float* to = taps + (3 * r + s) * tap + c;
          T sum = hn::LoadU(d, to);
          for (int j = 0; j < C + 2; ++j) sum = Added<C>(d, j, s, t[r][j], sum);
          hn::StoreU(sum, d, to);
        }
    });
  }

 private:
  template <int M, class Tag, class T>
  static HWY_INLINE T Added(Tag d, int frequency, int tap, T value, T sum) {
    const double g = Points<M>()[static_cast<size_t>(frequency)][static_cast<size_t>(tap)];
    return hn::MulAdd(hn::Set(d, static_cast<float>(g)), value, sum);
  }
};

/// Calls Each<R, C>::Run for the tile.
template <template <int, int> class Each, class... Arguments>
HWY_INLINE void ForTile(Tile tile, Arguments... arguments) {
  const auto columns = [&](auto rows) {
    if (tile.columns == 6)
      Each<decltype(rows)::value, 6>::Run(arguments...);
    else if (tile.columns == 4)
      Each<decltype(rows)::value, 4>::Run(arguments...);
    else
      Each<decltype(rows)::value, 3>::Run(arguments...);
  };
  if (tile.rows == 6)
    columns(std::integral_constant<int, 6>());
  else if (tile.rows == 4)
    columns(std::integral_constant<int, 4>());
  else
    columns(std::integral_constant<int, 3>());
}

void TransformInput(Tile tile, const float* const* pixels, size_t channels, float* v, Place place) {
  ForTile<InputTile>(tile, pixels, channels, v, place);
}

void TransformGradient(Tile tile, const float* const* pixels, size_t channels, float* v,
                       Place place) {
  ForTile<GradientTile>(tile, pixels, channels, v, place);
}

void TransformOutput(Tile tile, const float* p, size_t frequency, size_t channels,
                     const float* bias, float* const* pixels) {
  ForTile<OutputTile>(tile, p, frequency, channels, bias, pixels);
}

void TransformWeights(Tile tile, const float* taps, size_t tap, size_t channels, float* u,
                      size_t frequency) {
  ForTile<WeightsTile>(tile, taps, tap, channels, u, frequency);
}

void TransformToTaps(Tile tile, const float* u, size_t frequency, size_t channels, float* taps,
                     size_t tap) {
  ForTile<TapsTile>(tile, u, frequency, channels, taps, tap);
}

constexpr int kOuterRows = kBlock / 2;

/// Rows [0, kRows) of the left of nr's columns, two vectors wide; named sums, as in
/// engine/kernels.cpp.
template <int kRows>
HWY_INLINE void OuterPart(const float* HWY_RESTRICT a, size_t group, size_t groups,
                          const float* HWY_RESTRICT b, float* HWY_RESTRICT c) {
  const D d;
  const size_t lanes = hn::Lanes(d);
  V c00, c01, c10, c11, c20, c21, c30, c31, c40, c41, c50, c51, c60, c61, c70, c71;
  c00 = c01 = c10 = c11 = c20 = c21 = c30 = c31 = hn::Zero(d);
  c40 = c41 = c50 = c51 = c60 = c61 = c70 = c71 = hn::Zero(d);
#define GRAFT_ROW(row, left, right) \
  x = hn::Set(d, at[row]), (left) = hn::MulAdd(x, b0, left), (right) = hn::MulAdd(x, b1, right)
  for (; groups > 0; --groups, a += group) {
    const float* at = a;
    for (int t = 0; t < kMR; ++t, at += kBlock, b += kNR) {
      const V b0 = hn::Load(d, b);
      const V b1 = hn::Load(d, b + lanes);
      V x;
      GRAFT_ROW(0, c00, c01);
      GRAFT_ROW(1, c10, c11);
      GRAFT_ROW(2, c20, c21);
      GRAFT_ROW(3, c30, c31);
      if constexpr (kRows > 4) {
        GRAFT_ROW(4, c40, c41);
        GRAFT_ROW(5, c50, c51);
        GRAFT_ROW(6, c60, c61);
        GRAFT_ROW(7, c70, c71);
      }
    }
  }
#undef GRAFT_ROW
  const auto give = [&](int row, V left, V right) HWY_ATTR {
    hn::Store(left, d, c + row * kNR);
    hn::Store(right, d, c + row * kNR + lanes);
  };
  give(0, c00, c01), give(1, c10, c11), give(2, c20, c21), give(3, c30, c31);
  if constexpr (kRows > 4)
    give(4, c40, c41), give(5, c50, c51), give(6, c60, c61), give(7, c70, c71);
}

void Outer(const float* a, size_t group, size_t groups, const float* b, float* c) {
  const size_t step = 2 * hn::Lanes(D());
  for (size_t o = 0; o < kNR; o += step) OuterPart<kOuterRows>(a, group, groups, b + o, c + o);
}

const WinogradKernels* Table() {
  static const WinogradKernels kTable = {TransformInput,   TransformGradient, TransformOutput,
                                         TransformWeights, TransformToTaps,   Outer,
                                         kOuterRows};
  return &kTable;
}

}  // namespace graft::training::winograd::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace graft::training {
namespace winograd {
HWY_EXPORT(Table);
const WinogradKernels& best() { return *HWY_DYNAMIC_DISPATCH(Table)(); }
}  // namespace winograd

const WinogradKernels& winograd_kernels() {
  // The engine's come first: they heed GRAFT_TARGET.
  static const WinogradKernels& kBest = (engine::kernels(), winograd::best());
  return kBest;
}

}  // namespace graft::training
#endif
