// Winograd's minimal filtering F(m×m, 3×3) for m = 2, 3, 4 and 6, one dimension at a time (Lavin
// and Gray, "Fast algorithms for convolutional neural networks", 2015). Interpolation points 0, ±1,
// ∞ for m = 2, and 2 more for m = 3; 0, ±1, ±2, ∞ for m = 4 and 0, ±1, ±2, ±½, ∞ for m = 6.
// Also the sizes of the target. Included once per instruction set: see kernels.cpp.

// clang-format off: the guard that Highway wants toggles with each inclusion
#if defined(GRAFT_ENGINE_WINOGRAD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRAFT_ENGINE_WINOGRAD_INL_H_
#undef GRAFT_ENGINE_WINOGRAD_INL_H_
#else
#define GRAFT_ENGINE_WINOGRAD_INL_H_
#endif
// clang-format on

#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace graft::engine::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// The sizes of a target's layouts (engine/kernels.h): with AVX-512 vectors of 16 lanes and 32
/// registers, else at most 8 lanes; fewer loop over parts of a block of 8, so that code is right
/// from one lane up.
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3
constexpr int kBlock = 16;
constexpr int kMR = 12;
constexpr int kNR = 32;
#else
constexpr int kBlock = 8;
constexpr int kMR = 6;
constexpr int kNR = 16;
#endif

/// c · a + b with a constant.
template <class T>
HWY_INLINE T Scaled(float c, T a, T b) {
  return hn::MulAdd(hn::Set(hn::DFromV<T>(), c), a, b);
}

template <int M>
struct Winograd;

template <>
struct Winograd<2> {
  /// o = Bᵀ d.
  template <class T>
  static HWY_INLINE void InputRow(const T* d, T* o) {
    o[0] = hn::Sub(d[0], d[2]);
    o[1] = hn::Add(d[1], d[2]);
    o[2] = hn::Sub(d[2], d[1]);
    o[3] = hn::Sub(d[3], d[1]);
  }
  /// y = Aᵀ m.
  template <class T>
  static HWY_INLINE void OutputRow(const T* m, T* y) {
    y[0] = hn::Add(hn::Add(m[0], m[1]), m[2]);
    y[1] = hn::Add(hn::Sub(m[1], m[2]), m[3]);
  }
};

template <>
struct Winograd<3> {
  template <class T>
  static HWY_INLINE void InputRow(const T* d, T* o) {
    const T a = hn::Sub(d[3], d[1]);
    o[0] = Scaled(2.0F, hn::Sub(d[0], d[2]), a);
    o[1] = Scaled(-2.0F, d[1], hn::Sub(d[3], d[2]));
    o[2] = Scaled(2.0F, d[1], Scaled(-3.0F, d[2], d[3]));
    o[3] = a;
    o[4] = Scaled(-2.0F, a, hn::Sub(d[4], d[2]));
  }
  template <class T>
  static HWY_INLINE void OutputRow(const T* m, T* y) {
    const T a = hn::Add(m[1], m[2]);
    y[0] = hn::Add(hn::Add(m[0], a), m[3]);
    y[1] = Scaled(2.0F, m[3], hn::Sub(m[1], m[2]));
    y[2] = hn::Add(Scaled(4.0F, m[3], a), m[4]);
  }
};

template <>
struct Winograd<4> {
  template <class T>
  static HWY_INLINE void InputRow(const T* d, T* o) {
    o[0] = Scaled(4.0F, d[0], Scaled(-5.0F, d[2], d[4]));
    o[5] = Scaled(4.0F, d[1], Scaled(-5.0F, d[3], d[5]));
    const T a = Scaled(-4.0F, d[2], d[4]);
    const T b = Scaled(-4.0F, d[1], d[3]);
    o[1] = hn::Add(a, b);
    o[2] = hn::Sub(a, b);
    const T c = hn::Sub(d[4], d[2]);
    const T e = hn::Sub(d[3], d[1]);
    o[3] = Scaled(2.0F, e, c);
    o[4] = Scaled(-2.0F, e, c);
  }
  template <class T>
  static HWY_INLINE void OutputRow(const T* m, T* y) {
    const T a = hn::Add(m[1], m[2]);
    const T b = hn::Sub(m[1], m[2]);
    const T c = hn::Add(m[3], m[4]);
    const T d = hn::Sub(m[3], m[4]);
    y[0] = hn::Add(m[0], hn::Add(a, c));
    y[1] = Scaled(2.0F, d, b);
    y[2] = Scaled(4.0F, c, a);
    y[3] = hn::Add(Scaled(8.0F, d, b), m[5]);
  }
};

template <>
struct Winograd<6> {
  template <class T>
  static HWY_INLINE void InputRow(const T* d, T* o) {
    o[0] = Scaled(5.25F, hn::Sub(d[4], d[2]), hn::Sub(d[0], d[6]));
    o[7] = Scaled(5.25F, hn::Sub(d[3], d[5]), hn::Sub(d[7], d[1]));
    T a = Scaled(-4.25F, d[4], hn::Add(d[2], d[6]));
    T b = Scaled(-4.25F, d[3], hn::Add(d[1], d[5]));
    o[1] = hn::Add(a, b);
    o[2] = hn::Sub(a, b);
    a = Scaled(-1.25F, d[4], Scaled(0.25F, d[2], d[6]));
    b = Scaled(4.0F, d[5], Scaled(-5.0F, d[3], d[1]));
    o[3] = Scaled(0.5F, b, a);
    o[4] = Scaled(-0.5F, b, a);
    a = Scaled(-5.0F, d[4], Scaled(4.0F, d[2], d[6]));
    b = Scaled(4.0F, d[1], Scaled(-5.0F, d[3], d[5]));
    o[5] = Scaled(0.5F, b, a);
    o[6] = Scaled(-0.5F, b, a);
  }
  template <class T>
  static HWY_INLINE void OutputRow(const T* m, T* y) {
    const T a = hn::Add(m[1], m[2]);
    const T b = hn::Sub(m[1], m[2]);
    const T c = hn::Add(m[3], m[4]);
    const T d = hn::Sub(m[3], m[4]);
    const T e = hn::Add(m[5], m[6]);
    const T f = hn::Sub(m[5], m[6]);
    y[0] = hn::Add(hn::Add(m[0], a), Scaled(32.0F, e, c));
    y[1] = Scaled(16.0F, f, Scaled(2.0F, d, b));
    y[2] = Scaled(8.0F, e, Scaled(4.0F, c, a));
    y[3] = Scaled(4.0F, f, Scaled(8.0F, d, b));
    y[4] = Scaled(2.0F, e, Scaled(16.0F, c, a));
    y[5] = hn::Add(Scaled(32.0F, d, b), hn::Add(f, m[7]));
  }
};

}  // namespace graft::engine::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
