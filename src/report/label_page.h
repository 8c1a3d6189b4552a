// The part of a page that shows labels which are probably wrong.
#pragma once

#include <string>

#include "graft/labels.h"

namespace graft {

/// A section of HTML: how many there are of which classes, and each with its image, its label, the
/// suggestion and a path to copy. Says so where there are none.
std::string label_section(const Dataset& dataset, const LabelCheck& found);

}  // namespace graft
