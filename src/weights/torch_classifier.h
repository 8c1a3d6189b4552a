// Whole classifiers in PyTorch's state_dicts.
#pragma once

#include <span>
#include <string>

#include "weights/foreign_classifier.h"
#include "weights/stored_tensors.h"

namespace graft {

/// Reads a state_dict with torchvision's or timm's VGG and its classifier, or with any other head
/// that `words` describe (append_head). `order` has the names as the file orders them, layer by
/// layer; empty: it has no order, as in safetensors files, and numbers in names tell it. Throws
/// Error(input) where no VGG is in it, Error(usage) where the head must be said, or is and the file
/// says it.
ForeignGraph read_torch_classifier(const StoredTensors& tensors, std::span<const std::string> order,
                                   const std::string& file, const std::string& words);

}  // namespace graft
