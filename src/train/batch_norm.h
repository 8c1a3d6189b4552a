// Batch normalisation over the rows of all processes of a group.
#pragma once

#include <torch/torch.h>

#include "train/batch_part.h"

namespace graft {

/// The momentum and running statistics of torch::batch_norm in training, with the statistics of the
/// whole batch, forward and backward.
struct RunningStatistics {
  torch::Tensor mean;
  torch::Tensor variance;
  double momentum = 0.1;
};

/// x: (N, C) or (N, C, H, W), this process's rows. Two sums over the group forward, one backward,
/// all of them of 2·C numbers at most.
torch::Tensor group_batch_norm(const torch::Tensor& x, const torch::Tensor& weight,
                               const torch::Tensor& bias, const RunningStatistics& running,
                               double epsilon, const BatchPart& part);

}  // namespace graft
