#include "train/kernels.h"

// Highway compiles this file once for each instruction set.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "train/kernels.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h

#include <hwy/highway.h>

#include <algorithm>

#include "engine/kernels.h"
#include "engine/winograd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace graft::training::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using engine::HWY_NAMESPACE::Scaled;
using engine::HWY_NAMESPACE::Winograd;

using D = hn::CappedTag<float, 16>;
using Half = hn::CappedTag<float, 8>;
using One = hn::CappedTag<float, 1>;

/// body(tag, i) for whole vectors, then for what is left by eight and one by one.
template <class Body>
HWY_INLINE void ForEach(size_t count, const Body& body) {
  const D d;
  const size_t lanes = hn::Lanes(d);
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) body(d, i);
  for (const Half half; i + hn::Lanes(half) <= count; i += hn::Lanes(half)) body(half, i);
  for (; i < count; ++i) body(One(), i);
}

/// body(tag, i, place of gradient i).
template <class Body>
HWY_INLINE void ForEachGradient(size_t count, Runs runs, const Body& body) {
  if (runs.apart == runs.width) {
    ForEach(count, [&](auto d, size_t i) HWY_ATTR { body(d, i, i); });
    return;
  }
  for (size_t begin = 0, from = 0; begin < count; begin += runs.width, from += runs.apart)
    ForEach(std::min(runs.width, count - begin),
            [&](auto d, size_t i) HWY_ATTR { body(d, begin + i, from + i); });
}

void Adam(const AdamStep& s, size_t count, float* HWY_RESTRICT p, const float* HWY_RESTRICT g,
          Runs runs, float* HWY_RESTRICT m, float* HWY_RESTRICT v) {
  ForEachGradient(count, runs, [&](auto d, size_t i, size_t at) HWY_ATTR {
    const auto value = hn::LoadU(d, p + i);
    const auto gradient = hn::MulAdd(hn::Set(d, s.decay), value, hn::LoadU(d, g + at));
    const auto first = hn::MulAdd(hn::Set(d, s.beta1), hn::LoadU(d, m + i),
                                  hn::Mul(hn::Set(d, 1 - s.beta1), gradient));
    const auto second = hn::MulAdd(hn::Set(d, s.beta2), hn::LoadU(d, v + i),
                                   hn::Mul(hn::Set(d, 1 - s.beta2), hn::Mul(gradient, gradient)));
    const auto root = hn::MulAdd(hn::Sqrt(second), hn::Set(d, s.root_bias), hn::Set(d, s.epsilon));
    const auto change = hn::Div(hn::Mul(hn::Set(d, s.rate), first), root);
    hn::StoreU(first, d, m + i);
    hn::StoreU(second, d, v + i);
    hn::StoreU(hn::MulSub(hn::Set(d, s.keep), value, change), d, p + i);
  });
}

void Sgd(const SgdStep& s, size_t count, float* HWY_RESTRICT p, const float* HWY_RESTRICT g,
         Runs runs, float* HWY_RESTRICT m) {
  ForEachGradient(count, runs, [&](auto d, size_t i, size_t at) HWY_ATTR {
    const auto value = hn::LoadU(d, p + i);
    const auto gradient = hn::MulAdd(hn::Set(d, s.decay), value, hn::LoadU(d, g + at));
    const auto momentum = hn::MulAdd(hn::Set(d, s.momentum), hn::LoadU(d, m + i), gradient);
    hn::StoreU(momentum, d, m + i);
    hn::StoreU(hn::NegMulAdd(hn::Set(d, s.rate), momentum, value), d, p + i);
  });
}

template <class Tag>
HWY_INLINE hn::Vec<Tag> Pixel(Tag d, const float* pixel, size_t channel) {
  return pixel == nullptr ? hn::Zero(d) : hn::LoadU(d, pixel + channel);
}

template <int M>
void OutputTile(const float* p, size_t frequency, size_t channels, const float* bias,
                float* const* pixels) {
  ForEach(channels, [&](auto d, size_t c) HWY_ATTR {
    using V = hn::Vec<decltype(d)>;
    V t[M][M + 2];
    for (int j = 0; j < M + 2; ++j) {
      V x[M + 2], o[M];
      for (int i = 0; i < M + 2; ++i) x[i] = hn::LoadU(d, p + (i * (M + 2) + j) * frequency + c);
      Winograd<M>::OutputRow(x, o);
      for (int i = 0; i < M; ++i) t[i][j] = o[i];
    }
    const V shift = Pixel(d, bias, c);
    for (int i = 0; i < M; ++i) {
      V o[M];
      Winograd<M>::OutputRow(t[i], o);
      for (int j = 0; j < M; ++j)
        if (float* pixel = pixels[i * M + j]; pixel != nullptr)
          hn::StoreU(hn::Add(o[j], shift), d, pixel + c);
    }
  });
}

/// o = A y: the transposes of OutputRow.
template <int M>
struct GradientRow;

template <>
struct GradientRow<3> {
  template <class V>
  static HWY_INLINE void Run(const V* y, V* o) {
    const V even = hn::Add(y[0], y[2]);
    o[0] = y[0];
    o[1] = hn::Add(even, y[1]);
    o[2] = hn::Sub(even, y[1]);
    o[3] = Scaled(2.0F, Scaled(2.0F, y[2], y[1]), y[0]);
    o[4] = y[2];
  }
};

template <>
struct GradientRow<4> {
  template <class V>
  static HWY_INLINE void Run(const V* y, V* o) {
    const V even = hn::Add(y[0], y[2]);
    const V odd = hn::Add(y[1], y[3]);
    const V even4 = Scaled(4.0F, y[2], y[0]);
    const V odd4 = Scaled(4.0F, y[3], y[1]);  // to be doubled
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
  template <class V>
  static HWY_INLINE void Run(const V* y, V* o) {
    V even = hn::Add(hn::Add(y[0], y[2]), y[4]);
    V odd = hn::Add(hn::Add(y[1], y[3]), y[5]);
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

template <int M>
struct Input {
  static constexpr int kPixels = M + 2;
  static constexpr int kFrequencies = M + 2;
  template <class V>
  static HWY_INLINE void Row(const V* x, V* o) {
    Winograd<M>::InputRow(x, o);
  }
};

template <int M>
struct Gradient {
  static constexpr int kPixels = M;
  static constexpr int kFrequencies = M + 2;
  template <class V>
  static HWY_INLINE void Row(const V* y, V* o) {
    GradientRow<M>::Run(y, o);
  }
};

/// A window of pixels to its frequencies: Side::Row along the rows, then down the columns.
template <class Side>
void ToFrequencies(const float* const* pixels, size_t channels, float* v, size_t frequency) {
  constexpr int kPixels = Side::kPixels;
  constexpr int kFrequencies = Side::kFrequencies;
  ForEach(channels, [&](auto d, size_t c) HWY_ATTR {
    using V = hn::Vec<decltype(d)>;
    V t[kPixels][kFrequencies];
    for (int i = 0; i < kPixels; ++i) {
      V x[kPixels];
      for (int j = 0; j < kPixels; ++j) x[j] = Pixel(d, pixels[i * kPixels + j], c);
      Side::Row(x, t[i]);
    }
    for (int j = 0; j < kFrequencies; ++j) {
      V x[kPixels], o[kFrequencies];
      for (int i = 0; i < kPixels; ++i) x[i] = t[i][j];
      Side::Row(x, o);
      for (int i = 0; i < kFrequencies; ++i)
        hn::StoreU(o[i], d, v + (i * kFrequencies + j) * frequency + c);
    }
  });
}

template <int M>
constexpr TileTransforms Transforms() {
  return {ToFrequencies<Input<M>>, OutputTile<M>, ToFrequencies<Gradient<M>>};
}

const Kernels* Table() {
  static const Kernels kTable = {Adam, Sgd, Transforms<3>(), Transforms<4>(), Transforms<6>()};
  return &kTable;
}

}  // namespace graft::training::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace graft::training {

HWY_EXPORT(Table);

const Kernels& kernels() {
  // The engine's come first: they heed GRAFT_TARGET.
  static const Kernels& kBest = (engine::kernels(), *HWY_DYNAMIC_DISPATCH(Table)());
  return kBest;
}

}  // namespace graft::training
#endif
