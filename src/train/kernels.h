// The inner loops of training on a processor, one set per instruction set, chosen at run time
// (Google Highway). No LibTorch in here.
#pragma once

#include <cstddef>

namespace graft::training {

/// The constants of one Adam step, in the precision of the arrays.
struct AdamStep {
  float beta1, beta2;
  float rate;       ///< learning rate over the first moment's bias
  float root_bias;  ///< 1 / √(second moment's bias)
  float epsilon;
  float decay;  ///< times the parameter is added to the gradient
  float keep;   ///< what is left of the parameter after decoupled decay
};

struct SgdStep {
  float rate, momentum;
  float decay;  ///< times the parameter is added to the gradient
};

/// Where gradients lie: in runs of `width` elements, `apart` floats from one to the next; both the
/// same for an array without gaps.
struct Runs {
  size_t width;
  size_t apart;
};

struct Kernels {
  void (*adam)(const AdamStep& step, size_t count, float* parameter, const float* gradient,
               Runs runs, float* first, float* second);
  void (*sgd)(const SgdStep& step, size_t count, float* parameter, const float* gradient, Runs runs,
              float* momentum);
};

/// The kernels of the best instruction set of this processor.
const Kernels& kernels();

}  // namespace graft::training
