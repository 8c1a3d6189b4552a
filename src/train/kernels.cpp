#include "train/kernels.h"

// Highway compiles this file once for each instruction set.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "train/kernels.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h

#include <hwy/highway.h>

#include <algorithm>

#include "engine/kernels.h"

HWY_BEFORE_NAMESPACE();
namespace graft::training::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

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

const Kernels* Table() {
  static const Kernels kTable = {Adam, Sgd};
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
