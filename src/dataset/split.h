// Which images train, and which are set aside: decided by their content.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "graft/context.h"
#include "graft/dataset.h"
#include "graft/inspect.h"

namespace graft {

/// Each sample's content: Sample::content, or where that is empty what its file has. Tells of its
/// progress.
std::vector<std::string> contents_of(const Dataset& dataset, const RunContext& context);

/// Fills in Sample::content.
void read_contents(Dataset& dataset, const RunContext& context);

/// A share of the training images that goes to another split.
struct SplitShare {
  double fraction = 0;
  uint64_t seed = 0;
  Split to = Split::validation;
  /// Images of each class (copies count as one) that are left where it has more than so many: by
  /// chance a share of a small class may be all of it, and a second share needs two.
  size_t left = 1;
};

/// Sets a share of the training (or unassigned) samples aside, the rest go to train. A sample's
/// side is decided by the seed and its content alone, so that no other image, no name and no folder
/// ever moves it: of many images the share is `fraction` but for chance
/// (docs/decisions/0029-splits-by-content.md). Of each class at least one image goes to each side,
/// so that a class of one file, or of copies of one, is an error.
///
/// Identical files stay on one side, and so do those of each group of `together` (indices of
/// samples), where a group's side is that of its least content. `settled[i]`: sample i stays where
/// it is, and its group with it; empty: none is. Samples must have their contents.
void split_off(Dataset& dataset, const SplitShare& share,
               const std::vector<SampleGroup>& together = {},
               const std::vector<bool>& settled = {});

}  // namespace graft
