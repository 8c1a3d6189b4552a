// A backbone on its own, to start other trainings from.
#pragma once

#include "model/model_file.h"

namespace graft {

/// The layers below the head, with their weights; the result has no labels.
ModelFile without_head(const ModelFile& model);

/// The same backbone without BatchNorm, which is folded into the convolutions in front: vgg…_bn
/// becomes vgg…, with the same outputs in inference. Throws Error(input) where there is none.
ModelFile fold_batchnorm(const ModelFile& backbone);

}  // namespace graft
