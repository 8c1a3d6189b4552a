// The weights that training begins with.
#pragma once

#include "graft/context.h"
#include "graft/train.h"
#include "weights/tensor.h"

namespace graft {

/// Of the backbone, or of a classifier whose head is kept; downloads them where the recipe says so.
/// Tells what the file leaves open. Throws Error.
Weights load_backbone(const TrainPlan& plan, const RunContext& context);

}  // namespace graft
