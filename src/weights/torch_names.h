// How torchvision and timm name the tensors of a VGG.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "graft/network.h"

namespace graft {

enum class TorchNames : uint8_t {
  torchvision,  ///< features.0.weight, …, classifier.0.weight, …
  timm,         ///< features.0.weight, …, pre_logits.fc1.weight, …, head.fc.weight
};

/// Entries that a layer takes in an nn.Sequential list of layers: a ReLU is one of its own.
constexpr int torch_entries(const Layer& layer) { return layer.relu ? 2 : 1; }
/// From one dense layer of torchvision's classifier to the next: a ReLU and a Dropout stand
/// between.
inline constexpr int kTorchClassifierStep = 3;

/// Canonical name → their name, of every tensor of a backbone with or without top; all derived from
/// the list of layers. timm keeps fc1 and fc2 as convolutions: (out, channels, height, width) in
/// place of (out, in), the same numbers in the same order.
std::map<std::string, std::string> torch_names(const Network& backbone, TorchNames names);

}  // namespace graft
