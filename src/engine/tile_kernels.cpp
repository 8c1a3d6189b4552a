#include "engine/tile_kernels.h"

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

void round_portably(const float* sums, int pixels, bool relu, uint16_t* to) {
  for (int i = 0; i < pixels * kTileChannels; ++i) to[i] = to_bfloat16(relu_if(relu, sums[i]));
}

float largest(float a, float b) { return a > b ? a : b; }  // the second where one is NaN

void pool_portably(const float* upper, const float* lower, int pixels, bool relu, uint16_t* to) {
  for (int i = 0; i < pixels; ++i, upper += 2 * kTileChannels, lower += 2 * kTileChannels)
    for (int o = 0; o < kTileChannels; ++o)
      *to++ = to_bfloat16(relu_if(relu, largest(largest(upper[o], upper[o + kTileChannels]),
                                                largest(lower[o], lower[o + kTileChannels]))));
}

constexpr TileKernels kEmulated = {"emulated-amx",
                                   "amx-bf16",
                                   false,
                                   [](int) {},
                                   [] {},
                                   multiply_one_or_two<EmulatedTiles, 9>,
                                   multiply_one_or_two<EmulatedTiles, 1>,
                                   round_portably,
                                   pool_portably};

#if defined(__x86_64__)

// Conversions of a whole pixel at a time, and products, by the instructions of AVX512_BF16, which
// every processor with AMX has.
#define GRAFT_AVX512_BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))

/// The larger, or the second where one is NaN. Masked, because g++ 12 warns of the plain form.
GRAFT_AVX512_BF16 inline __m512 larger(__m512 a, __m512 b) {
  return _mm512_mask_max_ps(a, 0xffff, a, b);
}

GRAFT_AVX512_BF16 inline void put(__m512 left, __m512 right, __m512 floor, uint16_t* to) {
  const __m512bh both = _mm512_cvtne2ps_pbh(larger(floor, right), larger(floor, left));
  std::memcpy(to, &both, sizeof both);
}

GRAFT_AVX512_BF16 inline __m512 floor_of(bool relu) {
  return relu ? _mm512_setzero_ps() : _mm512_set1_ps(-__builtin_inff());
}

GRAFT_AVX512_BF16 void round_avx512(const float* sums, int pixels, bool relu, uint16_t* to) {
  const __m512 floor = floor_of(relu);
  for (int i = 0; i < pixels; ++i, sums += kTileChannels, to += kTileChannels)
    put(_mm512_load_ps(sums), _mm512_load_ps(sums + 16), floor, to);
}

GRAFT_AVX512_BF16 void pool_avx512(const float* upper, const float* lower, int pixels, bool relu,
                                   uint16_t* to) {
  const __m512 floor = floor_of(relu);
  for (int i = 0; i < pixels; ++i, to += kTileChannels) {
    __m512 half[2];
    for (int h = 0; h < 2; ++h)
      half[h] = larger(larger(_mm512_load_ps(upper + 16 * h), _mm512_load_ps(upper + 32 + 16 * h)),
                       larger(_mm512_load_ps(lower + 16 * h), _mm512_load_ps(lower + 32 + 16 * h)));
    put(half[0], half[1], floor, to);
    upper += 2 * kTileChannels;
    lower += 2 * kTileChannels;
  }
}

/// The matrix unit. Assembly of our own: the tile intrinsics of g++ 12 are no memory operands, so
/// that the compiler moves stores past a tile's load or configuration. TDPFP16PS and the like need
/// no compiler flags this way either.
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
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSums), "i"(kPixels), "i"(kWeights)
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

constexpr TileKernels kAmx = {"amx",
                              "amx-bf16",
                              true,
                              enter_amx,
                              leave_amx,
                              multiply_one_or_two<AmxTiles, 9>,
                              multiply_one_or_two<AmxTiles, 1>,
                              round_avx512,
                              pool_avx512};

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

constexpr TileKernels kAvx512Bf16 = {"avx512_bf16",
                                     "avx512-bf16",
                                     false,
                                     [](int) {},
                                     [] {},
                                     multiply_one_or_two<Avx512Bf16Tiles, 9>,
                                     multiply_one_or_two<Avx512Bf16Tiles, 1>,
                                     round_avx512,
                                     pool_avx512};

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

// Intel's manual, CPUID leaf 7: what follows is in sub-leaf 0, but AVX512_BF16 in 1.
constexpr unsigned kAvx512FBwVl = 1U << 16U | 1U << 30U | 1U << 31U;  // EBX
constexpr unsigned kAmxBf16Tile = 1U << 22U | 1U << 24U;              // EDX
constexpr unsigned kAvx512Bf16Bit = 1U << 5U;                         // EAX
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

const TileKernels* choose_tile_kernels() {
  const std::string target = forced_target();
  if (target == kEmulated.name) return &kEmulated;
  if ((target.empty() || target == "amx") && amx_kernels() != nullptr) return amx_kernels();
  if (target.empty() || target == "avx512") return avx512_bf16_kernels();
  return nullptr;
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
#else
const TileKernels* avx512_bf16_kernels() { return nullptr; }
const TileKernels* amx_kernels() { return nullptr; }
#endif
const TileKernels* emulated_amx_kernels() { return &kEmulated; }

const TileKernels* tile_kernels() {
  static const TileKernels* const kChosen = choose_tile_kernels();
  return kChosen;
}

}  // namespace graft::engine
