// LibTorch's thread pools and BLAS: one budget for all.
#include <dlfcn.h>
#include <fmt/format.h>
#include <omp.h>
#include <torch/torch.h>
#include <torch/version.h>

#include <cstdlib>
#include <string>

#include "train/trainer.h"

namespace graft {
namespace {

/// OpenBLAS's own functions where OpenBLAS is what libblas.so.3 resolves to, else null. Asked at
/// run time, since which BLAS a Debian system uses is the administrator's choice.
template <typename Function>
Function* openblas_function(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_DEFAULT, name));
}

}  // namespace

void set_training_threads(int threads) {
  // What LibTorch asks for in each of its threads. at::set_num_threads() would also start a pool of
  // all processors' threads, which nothing here uses, and which waits for ever under a limit on
  // processes.
  const std::string text = std::to_string(threads);
  ::setenv("OMP_NUM_THREADS", text.c_str(), 1);
  ::setenv("MKL_NUM_THREADS", text.c_str(), 1);
  ::omp_set_num_threads(threads);
  // Products are shared out by shared_product(), convolution() and dense().
  if (auto* set = openblas_function<void(int)>("openblas_set_num_threads")) set(1);
}

std::string training_backend() {
  std::string blas =
      "not OpenBLAS (install libopenblas0-pthread: the reference BLAS is about 50 "
      "times slower)";
  if (auto* config = openblas_function<const char*()>("openblas_get_config")) blas = config();
  return fmt::format("LibTorch {}, {} threads, BLAS: {}", TORCH_VERSION, at::get_num_threads(),
                     blas);
}

}  // namespace graft
