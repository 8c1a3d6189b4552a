// Features of the frozen prefix, computed by all processes of a group together.
#pragma once

#include <string>

#include "features/sample_source.h"

namespace graft {

class Group;

/// Afterwards the caches of all ranks, one that they share or several, have the features that the
/// source will ask for: what one of them has goes to those that lack it, and what nobody has is
/// computed by all, in blocks that whoever is done takes next, and kept from then on. A rank
/// without a cache, or whose cache fails or is full, computes what it lacks when it reads. `name`:
/// of this work in the group, used once.
void extract_together(const SourceJob& job, const std::string& name, Group& group);

}  // namespace graft
