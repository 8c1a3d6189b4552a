#include "cli/blas_kernels.h"

#include <dlfcn.h>

#include <algorithm>
#include <array>

namespace graft::cli {
namespace {

VectorUnits units_of_this_processor() {
  VectorUnits has;
#ifdef __x86_64__
  __builtin_cpu_init();
  has.avx2 = __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0;
  has.avx512 = __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512cd") != 0 &&
               __builtin_cpu_supports("avx512bw") != 0 && __builtin_cpu_supports("avx512dq") != 0 &&
               __builtin_cpu_supports("avx512vl") != 0;
  has.avx512_bf16 = __builtin_cpu_supports("avx512bf16") != 0;
#endif
  return has;
}

}  // namespace

std::string better_blas_kernels(std::string_view chosen, const VectorUnits& has) {
  // Those that its detection ends with, driver/others/dynamic.c.
  constexpr std::array<std::string_view, 3> kFallbacks = {"Prescott", "Nehalem", "Barcelona"};
  if (std::find(kFallbacks.begin(), kFallbacks.end(), chosen) == kFallbacks.end() || !has.avx2)
    return {};
  if (!has.avx512) return "Haswell";
  return has.avx512_bf16 ? "Cooperlake" : "SkylakeX";
}

std::string better_blas_kernels() {
  void* blas = ::dlopen("libblas.so.3", RTLD_LAZY | RTLD_LOCAL);
  if (blas == nullptr) return {};
  // Null in another BLAS, which is the administrator's choice.
  using Corename = char*();
  auto* corename = reinterpret_cast<Corename*>(::dlsym(blas, "openblas_get_corename"));
  return corename == nullptr ? "" : better_blas_kernels(corename(), units_of_this_processor());
}

}  // namespace graft::cli
