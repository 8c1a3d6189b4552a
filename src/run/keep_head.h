// `head` keep: training that goes on from a classifier, with its head.
#pragma once

#include <string>
#include <vector>

#include "graft/context.h"
#include "graft/recipe.h"
#include "weights/tensor.h"

namespace graft {

bool keeps_head(const Recipe& recipe);

/// Fills in what the classifier decides: backbone, cut, input size unless it is given, and its
/// classes where another program's file does not say them. Gives its network for so many classes as
/// the data has, and adds notes. Throws Error(usage) where the recipe names something else, or
/// where it is not known which classes its outputs stand for; Error(input) as import_classifier().
Network keep_head(Recipe& recipe, const std::vector<std::string>& classes,
                  std::vector<std::string>& notes, const RunContext& context);

/// The weights of all layers of that network: the last layer has the rows of the classes that the
/// classifier has too, and new ones drawn from the seed.
Weights load_kept(const Recipe& recipe, const Network& network,
                  const std::vector<std::string>& classes, const RunContext& context);

}  // namespace graft
