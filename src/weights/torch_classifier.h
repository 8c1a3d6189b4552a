// torchvision's and timm's classifiers: a state_dict with the layers behind the features.
#pragma once

#include <optional>
#include <string>

#include "weights/foreign_classifier.h"
#include "weights/stored_tensors.h"

namespace graft {

/// A VGG with the classifier of torchvision or timm on it, of any number of classes. Nothing where
/// the tensors behind the features are others than those, which have no activations to read. Throws
/// Error(input) where no VGG is in them. The tensors must outlive reading the graph's.
std::optional<ForeignGraph> read_torch_classifier(const StoredTensors& tensors,
                                                  const std::string& file);

}  // namespace graft
