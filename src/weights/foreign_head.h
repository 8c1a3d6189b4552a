// Heads of files that have weights alone, with the words that say how they compute.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "weights/foreign_classifier.h"

namespace graft {

/// A layer with tensors that is not the backbone's, in the file's order; canonical layout and
/// roles.
struct ForeignPart {
  std::string name;
  std::map<std::string, StoredTensor> tensors;
};

/// Appends to a graph that has a backbone's layers the head that `words` describe (with_head() of
/// network.h), whose layers take the parts of their kind in the file's order: each, and no more.
/// The last dense layer is implied. What the words leave open is noted. Throws Error(input) where a
/// part is of no layer that a head may have, Error(usage) where that does not come out, or where
/// there are no words, and then says which there may be. `epsilon` is that of BatchNorm layers.
void append_head(ForeignGraph& graph, const Network& backbone, const std::string& words,
                 const std::vector<ForeignPart>& parts, double epsilon);

}  // namespace graft
