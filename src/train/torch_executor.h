// Layers of a network in inference mode, by LibTorch: for GPUs.
#pragma once

#include <torch/torch.h>

#include <memory>
#include <vector>

#include "engine/executor.h"

namespace graft {

/// Layers [begin, end) on a device, `rows` images at a time: what is missing of a step is filled
/// up, so that an image's result depends neither on the others nor on their number (but for
/// EngineOptions::single_plan). Weights are there once; of those who run() at once two have buffers
/// of their own, pinned where the device is a GPU, and a stream each, so that the images of one go
/// there while those of the other are computed. Convolutions are computed in the options'
/// precision, with sums in float32; all else in float32.
std::unique_ptr<engine::Executor> make_torch_executor(const torch::Device& device, int rows,
                                                      const Network& network, size_t begin,
                                                      size_t end, const TensorMap& tensors,
                                                      const engine::EngineOptions& options);

/// What a device makes of a convolution and a product of fixed numbers, `rows` images at a time.
/// Throws Error(usage) where it has no such precision.
std::vector<float> probe_device(const torch::Device& device, Precision precision, int rows);

}  // namespace graft
