// Names of a network's tensors as PyTorch's state_dicts have them.
#pragma once

#include <string>
#include <vector>

#include "graft/network.h"

namespace graft {

/// For each layer its module's name, "" for layers without tensors. Backbones have torchvision's
/// names, features.N, where each convolution, BatchNorm, ReLU and pooling counts; so has a head
/// that is torchvision's own on a whole backbone (flatten, dense 4096, dense 4096, classes):
/// classifier.0, .3, .6. Any other head is head.N, counted alike: each layer, and each ReLU.
std::vector<std::string> torch_modules(const Network& network);

}  // namespace graft
