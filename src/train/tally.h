// What a training loop counts.
#pragma once

#include <torch/torch.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "train/loop.h"

namespace graft {

/// Sums over batches.
struct TrainLoop::Tally {
  double loss = 0;
  int64_t correct = 0;
  int64_t seen = 0;
  bool stopped = false;

  void add(const torch::Tensor& mean_loss, const torch::Tensor& logits,
           const torch::Tensor& labels) {
    const int64_t n = labels.size(0);
    loss += mean_loss.item<double>() * static_cast<double>(n);
    correct += logits.argmax(1).eq(labels).sum().item<int64_t>();
    seen += n;
  }
  [[nodiscard]] double mean_loss() const { return seen > 0 ? loss / static_cast<double>(seen) : 0; }
  [[nodiscard]] double accuracy() const {
    return seen > 0 ? static_cast<double>(correct) / static_cast<double>(seen) : 0;
  }
};

/// The worst first, at most kMostEpochMistakes.
inline void keep_worst(std::vector<ValidationMistake>& mistakes) {
  std::stable_sort(mistakes.begin(), mistakes.end(),
                   [](const auto& a, const auto& b) { return a.loss > b.loss; });
  mistakes.resize(std::min(mistakes.size(), kMostEpochMistakes));
}

}  // namespace graft
