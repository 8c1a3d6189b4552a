// Which of its kernels OpenBLAS is to use in the program that LibTorch is loaded into.
#pragma once

#include <string>
#include <string_view>

namespace graft::cli {

/// What of this processor decides which kernels are the fastest that it can execute.
struct VectorUnits {
  bool avx2 = false;    ///< and FMA
  bool avx512 = false;  ///< F, CD, BW, DQ and VL
  bool avx512_bf16 = false;
};

/// OpenBLAS's name for the kernels that it should be started with, in OPENBLAS_CORETYPE, where
/// those that it has chosen are the ones of before AVX that it falls back to for processors that it
/// does not know: 0.3.21, Debian 12's, does so for Intel's since Emerald Rapids (OpenBLAS issue
/// 4267, mended in 0.3.25). Empty where its choice stands.
std::string better_blas_kernels(std::string_view chosen, const VectorUnits& has);

/// The same for this processor and the BLAS that LibTorch will load, which is loaded here to be
/// asked: it chooses while it is loaded, and tells in no other way.
std::string better_blas_kernels();

}  // namespace graft::cli
