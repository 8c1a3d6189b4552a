// Whether a file that was written says what the model says.
#pragma once

#include "graft/context.h"
#include "model/model_file.h"

namespace graft {

struct Comparison {
  int images = 0;
  double largest_error = 0;  ///< of a logit, in parts of its image's largest
};

/// Runs the network with the model's tensors and with those read back on a few synthetic images.
Comparison compare_logits(const ModelFile& model, const TensorMap& read, const RunContext& context);

}  // namespace graft
