// What an augmentation does to images, on a contact sheet.
#pragma once

#include <cstdint>
#include <string>

#include "graft/context.h"
#include "graft/dataset.h"
#include "graft/image.h"
#include "graft/recipe.h"

#pragma GCC visibility push(default)
namespace graft {

struct PreviewOptions {
  std::string augment = "light";  ///< see docs/augmentation.md
  InputSize input{224, 224};      ///< of each image
  int images = 6;                 ///< a row each, at most
  int views = 8;                  ///< of each image, in columns
  uint64_t seed = 0;              ///< of the training run to preview
};

struct Preview {
  Image sheet;   ///< images as they are in the first column, their views beside them
  int rows = 0;  ///< images that could be read
};

/// Draws training images, one class after the other in turn, and the views that training would
/// draw of them. Tells of those that cannot be read. Throws Error(usage) for a sheet that would be
/// too large, Error(input) where no image can be read.
Preview preview(const Dataset& dataset, const PreviewOptions& options,
                const RunContext& context = {});

}  // namespace graft
#pragma GCC visibility pop
