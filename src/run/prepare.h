// A dataset made ready for training: checked, thinned out, split.
#pragma once

#include "graft/context.h"
#include "graft/dataset.h"
#include "graft/recipe.h"
#include "graft/train.h"

namespace graft {

/// Leaves out what the recipe excludes and what is not there, splits validation and test images
/// off where there are none, and notes what looks wrong. Throws Error(input) where a class is left
/// without training images, or too many images cannot be used.
void prepare_dataset(Dataset& dataset, const Recipe& recipe, const RunContext& context);

/// Throws Error(usage) for a plan that was changed by hand so that its parts contradict each other.
void check_plan(const TrainPlan& plan);

}  // namespace graft
