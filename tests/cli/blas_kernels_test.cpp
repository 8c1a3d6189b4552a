#include "cli/blas_kernels.h"

#include <gtest/gtest.h>

namespace graft::cli {
namespace {

TEST(BlasKernels, OfProcessorsThatOpenBlasDoesNotKnow) {
  const VectorUnits avx2 = {.avx2 = true};
  const VectorUnits avx512 = {.avx2 = true, .avx512 = true};
  const VectorUnits bf16 = {.avx2 = true, .avx512 = true, .avx512_bf16 = true};
  EXPECT_EQ(better_blas_kernels("Prescott", avx2), "Haswell");
  EXPECT_EQ(better_blas_kernels("Prescott", avx512), "SkylakeX");
  EXPECT_EQ(better_blas_kernels("Prescott", bf16), "Cooperlake");
  EXPECT_EQ(better_blas_kernels("Barcelona", avx2), "Haswell");
  EXPECT_EQ(better_blas_kernels("Prescott", {}), "") << "as good as it gets";
  for (const char* chosen : {"Haswell", "Zen", "SkylakeX", "Cooperlake", "Sapphirerapids", "armv8"})
    EXPECT_EQ(better_blas_kernels(chosen, bf16), "") << chosen;
}

}  // namespace
}  // namespace graft::cli
