#include "engine/tile_kernels.h"

#include <cmath>
#include <string>

#include "engine/kernels.h"
#include "engine/tiles-inl.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace graft::engine {
namespace {

/// As the processors' maximum: NaN passes, and so does −0.
float relu_if(bool relu, float x) { return relu && x < 0 ? 0 : x; }

float largest(float a, float b) { return a > b ? a : b; }  // the second where one is NaN

/// One number, ReLU applied before.
template <TileFormat kFormat>
void put_portably(float x, const TileRounding& how, uint16_t* to) {
  if constexpr (kFormat == TileFormat::bf16) {
    *to = to_bfloat16(x);
  } else {
    *how.most = largest(std::abs(x), *how.most);
    split_halves(x * how.scale, to, to + how.low);
  }
}

template <TileFormat kFormat>
void round_portably(const float* sums, int pixels, const TileRounding& how, uint16_t* to) {
  for (int i = 0; i < pixels * kTileChannels; ++i)
    put_portably<kFormat>(relu_if(how.relu, sums[i]), how, to + i);
}

template <TileFormat kFormat>
void pool_portably(const float* upper, const float* lower, int pixels, const TileRounding& how,
                   uint16_t* to) {
  for (int i = 0; i < pixels; ++i, upper += 2 * kTileChannels, lower += 2 * kTileChannels)
    for (int o = 0; o < kTileChannels; ++o)
      put_portably<kFormat>(relu_if(how.relu, largest(largest(upper[o], upper[o + kTileChannels]),
                                                      largest(lower[o], lower[o + kTileChannels]))),
                            how, to++);
}

template <class Tiles, TileFormat kFormat>
constexpr TileKernels table(const char* name, const char* numerics, bool fast, void (*enter)(int),
                            void (*leave)(), decltype(TileKernels::round) round,
                            decltype(TileKernels::pool) pool) {
  return {name,
          numerics,
          kFormat,
          fast,
          enter,
          leave,
          multiply_one_or_two<Tiles, kFormat, 9>,
          multiply_one_or_two<Tiles, kFormat, 1>,
          round,
          pool};
}

template <TileFormat kFormat>
constexpr TileKernels emulated(const char* name, const char* numerics) {
  return table<EmulatedTiles<kFormat>, kFormat>(
      name, numerics, false, [](int) {}, [] {}, round_portably<kFormat>, pool_portably<kFormat>);
}

constexpr TileKernels kEmulated = emulated<TileFormat::bf16>("emulated-amx", "amx-bf16");
constexpr TileKernels kEmulatedFp16 =
    emulated<TileFormat::halves>("emulated-amx-fp16", "amx-fp16x3");

#if defined(__x86_64__)

// Conversions of a whole pixel at a time, and products, by the instructions of AVX512_BF16, which
// every processor with AMX has.
#define GRAFT_AVX512_BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))

/// The larger, or the second where one is NaN. Masked, because g++ 12 warns of the plain form.
GRAFT_AVX512_BF16 inline __m512 larger(__m512 a, __m512 b) {
  return _mm512_mask_max_ps(a, 0xffff, a, b);
}

/// Two vectors of outputs of one pixel, rounded to where their format wants them.
template <TileFormat kFormat>
struct Avx512Put {
  GRAFT_AVX512_BF16 static void put(__m512 left, __m512 right, const TileRounding& how,
                                    __m512& most, uint16_t* to) {
    // The floor comes first: where one is NaN, the second is the larger.
    const __m512 floor = how.relu ? _mm512_setzero_ps() : _mm512_set1_ps(-__builtin_inff());
    left = larger(floor, left);
    right = larger(floor, right);
    if constexpr (kFormat == TileFormat::bf16) {
      const __m512bh both = _mm512_cvtne2ps_pbh(right, left);
      std::memcpy(to, &both, sizeof both);
    } else {
      most = larger(larger(_mm512_abs_ps(left), _mm512_abs_ps(right)), most);
      const __m512 scale = _mm512_set1_ps(how.scale);
      split(_mm512_mul_ps(left, scale), to, to + how.low);
      split(_mm512_mul_ps(right, scale), to + 16, to + 16 + how.low);
    }
  }
  GRAFT_AVX512_BF16 static void split(__m512 x, uint16_t* high, uint16_t* low) {
    const __m256i h = _mm512_maskz_cvtps_ph(0xffff, x, _MM_FROUND_TO_NEAREST_INT);
    const __m256i l = _mm512_maskz_cvtps_ph(
        0xffff, _mm512_sub_ps(x, _mm512_maskz_cvtph_ps(0xffff, h)), _MM_FROUND_TO_NEAREST_INT);
    std::memcpy(high, &h, sizeof h);
    std::memcpy(low, &l, sizeof l);
  }
  GRAFT_AVX512_BF16 static void keep(__m512 most, const TileRounding& how) {
    if constexpr (kFormat == TileFormat::halves) {
      alignas(64) float values[16];
      _mm512_store_ps(values, most);
      for (const float value : values) *how.most = largest(value, *how.most);
    }
  }
};

template <TileFormat kFormat>
GRAFT_AVX512_BF16 void round_avx512(const float* sums, int pixels, const TileRounding& how,
                                    uint16_t* to) {
  using Put = Avx512Put<kFormat>;
  __m512 most = _mm512_setzero_ps();
  for (int i = 0; i < pixels; ++i, sums += kTileChannels, to += kTileChannels)
    Put::put(_mm512_load_ps(sums), _mm512_load_ps(sums + 16), how, most, to);
  Put::keep(most, how);
}

template <TileFormat kFormat>
GRAFT_AVX512_BF16 void pool_avx512(const float* upper, const float* lower, int pixels,
                                   const TileRounding& how, uint16_t* to) {
  using Put = Avx512Put<kFormat>;
  __m512 most = _mm512_setzero_ps();
  for (int i = 0; i < pixels; ++i, to += kTileChannels) {
    __m512 half[2];
    for (int h = 0; h < 2; ++h)
      half[h] = larger(larger(_mm512_load_ps(upper + 16 * h), _mm512_load_ps(upper + 32 + 16 * h)),
                       larger(_mm512_load_ps(lower + 16 * h), _mm512_load_ps(lower + 32 + 16 * h)));
    Put::put(half[0], half[1], how, most, to);
    upper += 2 * kTileChannels;
    lower += 2 * kTileChannels;
  }
  Put::keep(most, how);
}

/// The matrix unit. Assembly of our own: the tile intrinsics of g++ 12 are no memory operands, so
/// that the compiler moves stores past a tile's load or configuration. TDPFP16PS and the like need
/// no compiler flags this way either.
template <TileFormat kFormat>
class AmxTiles {
 public:
  explicit AmxTiles(int /*rows*/) {}

  template <int kTile>
  void load(const void* from, size_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(kTile) : "memory");
  }
  template <int kTile>
  void store(void* to, size_t stride) const {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(kTile) : "memory");
  }
  template <int kSums, int kPixels, int kWeights>
  void multiply() {
    if constexpr (kFormat == TileFormat::halves)
      // tdpfp16ps %tmm<weights>, %tmm<pixels>, %tmm<sums>: assemblers of 2022 do not know it. VEX
      // map 0F38, prefix F2, opcode 5C; the weights' number is inverted in VEX.vvvv.
      asm volatile(".byte 0xc4, 0xe2, %c0, 0x5c, %c1" ::"i"((~kWeights & 15) << 3 | 3),
                   "i"(0xc0 | kSums << 3 | kPixels)
                   : "memory");
    else
      asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSums), "i"(kPixels),
                   "i"(kWeights)
                   : "memory");
  }
  /// A tile's store some 2,000 cycles after the last one costs about 900: one that nobody reads
  /// keeps them apart (measured on a Sapphire Rapids Xeon, cause unknown).
  void settle() { store<4>(unread_, 64); }

 private:
  alignas(64) unsigned char unread_[1024];
};

/// What LDTILECFG reads (Intel's manual, palette 1).
struct alignas(64) TileConfiguration {
  uint8_t palette = 1;
  uint8_t start = 0;
  uint8_t reserved[14] = {};
  uint16_t bytes[16] = {};
  uint8_t rows[16] = {};
};

void enter_amx(int rows) {
  TileConfiguration c;
  for (int i = 0; i < 8; ++i) {
    c.bytes[i] = 64;
    c.rows[i] = static_cast<uint8_t>(i < 6 ? rows : 16);
  }
  asm volatile("ldtilecfg %0" ::"m"(c) : "memory");
}

void leave_amx() { asm volatile("tilerelease" ::: "memory"); }

template <TileFormat kFormat>
constexpr TileKernels amx(const char* name, const char* numerics) {
  return table<AmxTiles<kFormat>, kFormat>(name, numerics, true, enter_amx, leave_amx,
                                           round_avx512<kFormat>, pool_avx512<kFormat>);
}

constexpr TileKernels kAmx = amx<TileFormat::bf16>("amx", "amx-bf16");
constexpr TileKernels kAmxFp16 = amx<TileFormat::halves>("amx-fp16", "amx-fp16x3");

/// Tiles in vector registers: pixels and weights stay where they are in memory, 16 × 16 sums are
/// in registers while a product runs.
class Avx512Bf16Tiles {
 public:
  explicit Avx512Bf16Tiles(int rows) : rows_(rows) {}

  template <int kTile>
  void load(const void* from, size_t stride) {
    if constexpr (kTile >= 4) {
      at_[kTile - 4] = static_cast<const char*>(from);
    } else {
      for (int r = 0; r < rows_; ++r)
        std::memcpy(sums_[kTile][r], static_cast<const char*>(from) + r * stride, 64);
      for (int r = rows_; r < 16; ++r) std::memset(sums_[kTile][r], 0, 64);
    }
  }
  template <int kTile>
  void store(void* to, size_t stride) const {
    for (int r = 0; r < rows_; ++r)
      std::memcpy(static_cast<char*>(to) + r * stride, sums_[kTile][r], 64);
  }
  template <int kSums, int kPixels, int kWeights>
  void multiply() {
    // Rows past the last are read, which is harmless (maps have room behind them), and not stored.
    product(&sums_[kSums][0][0], at_[kPixels - 4], at_[kWeights - 4]);
  }
  void settle() {}

 private:
  GRAFT_AVX512_BF16 static void product(float* sums, const char* pixels, const char* weights) {
    __m512 s[16];
#pragma GCC unroll 16
    for (int r = 0; r < 16; ++r) s[r] = _mm512_load_ps(sums + r * 16);
    for (int pair = 0; pair < 16; ++pair) {
      __m512i w = _mm512_loadu_si512(weights + static_cast<ptrdiff_t>(pair) * 64);
#pragma GCC unroll 16
      for (int r = 0; r < 16; ++r) {
        int32_t x;
        std::memcpy(&x, pixels + static_cast<ptrdiff_t>(r) * 64 + static_cast<ptrdiff_t>(pair) * 4,
                    4);
        s[r] = _mm512_dpbf16_ps(s[r], reinterpret_cast<__m512bh>(w),
                                reinterpret_cast<__m512bh>(_mm512_set1_epi32(x)));
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < 16; ++r) _mm512_store_ps(sums + r * 16, s[r]);
  }

  int rows_;
  const char* at_[4];
  alignas(64) float sums_[4][16][16];
};

constexpr TileKernels kAvx512Bf16 = table<Avx512Bf16Tiles, TileFormat::bf16>(
    "avx512_bf16", "avx512-bf16", false, [](int) {}, [] {}, round_avx512<TileFormat::bf16>,
    pool_avx512<TileFormat::bf16>);

struct Leaf {
  unsigned a = 0, b = 0, c = 0, d = 0;
};
Leaf leaf(unsigned number, unsigned sub) {
  Leaf l;
  if (__get_cpuid_count(number, sub, &l.a, &l.b, &l.c, &l.d) == 0) return {};
  return l;
}

/// Bits of XCR0, the state that the system saves; 0 where it saves none.
uint64_t saved_state() {
  constexpr unsigned kOsxsave = 1U << 27U;
  if ((leaf(1, 0).c & kOsxsave) == 0) return 0;
  unsigned low = 0;
  unsigned high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32U | low;
}

// Intel's manual, CPUID leaf 7: what follows is in sub-leaf 0, but AVX512_BF16 and
// AMX-FP16 in 1.
constexpr unsigned kAvx512FBwVl = 1U << 16U | 1U << 30U | 1U << 31U;  // EBX
constexpr unsigned kAmxBf16Tile = 1U << 22U | 1U << 24U;              // EDX
constexpr unsigned kAvx512Bf16Bit = 1U << 5U;                         // EAX
constexpr unsigned kAmxFp16Bit = 1U << 21U;                           // EAX
constexpr uint64_t kVectorState = 0xe6;                               // XCR0: XMM, YMM, ZMM
constexpr uint64_t kTileState = 0x60000;                              // XCR0: TILECFG, TILEDATA

bool has_avx512_bf16() {
  return (leaf(7, 0).b & kAvx512FBwVl) == kAvx512FBwVl && (leaf(7, 1).a & kAvx512Bf16Bit) != 0 &&
         (saved_state() & kVectorState) == kVectorState;
}

/// Asks the kernel, once for the process, for room to save tiles in: without it the first tile
/// instruction is a fault. Old kernels, emulators and some containers say no.
bool may_use_tiles() {
  constexpr int kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr int kTileData = 18;
  return ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

#endif

const TileKernels* choose_tile_kernels(Precision precision) {
  const std::string target = forced_target();
  const bool any = target.empty();
  if (precision == Precision::fp32) {
    if (target == kEmulatedFp16.name) return &kEmulatedFp16;
    return any || target == "amx-fp16" ? amx_fp16_kernels() : nullptr;
  }
  if (target == kEmulated.name || target == kEmulatedFp16.name) return &kEmulated;
  if ((any || target == "amx" || target == "amx-fp16") && amx_kernels() != nullptr)
    return amx_kernels();
  return any || target == "avx512" ? avx512_bf16_kernels() : nullptr;
}

}  // namespace

#if defined(__x86_64__)
const TileKernels* avx512_bf16_kernels() {
  static const bool kThere = has_avx512_bf16();
  return kThere ? &kAvx512Bf16 : nullptr;
}
const TileKernels* amx_kernels() {
  static const bool kThere = has_avx512_bf16() && (leaf(7, 0).d & kAmxBf16Tile) == kAmxBf16Tile &&
                             (saved_state() & kTileState) == kTileState && may_use_tiles();
  return kThere ? &kAmx : nullptr;
}
const TileKernels* amx_fp16_kernels() {
  static const bool kThere = amx_kernels() != nullptr && (leaf(7, 1).a & kAmxFp16Bit) != 0;
  return kThere ? &kAmxFp16 : nullptr;
}
#else
const TileKernels* avx512_bf16_kernels() { return nullptr; }
const TileKernels* amx_fp16_kernels() { return nullptr; }
const TileKernels* amx_kernels() { return nullptr; }
#endif
const TileKernels* emulated_amx_kernels() { return &kEmulated; }
const TileKernels* emulated_amx_fp16_kernels() { return &kEmulatedFp16; }

bool rounds_operands() {
  static const bool kRounds = forced_target() == kRoundedTarget;
  return kRounds;
}

const TileKernels* tile_kernels(Precision precision) {
  static const TileKernels* const kChosen[] = {choose_tile_kernels(Precision::fp32),
                                               choose_tile_kernels(Precision::bf16)};
  return kChosen[precision == Precision::fp32 ? 0 : 1];
}

}  // namespace graft::engine
