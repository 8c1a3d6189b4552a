// Training batches, prepared ahead of their use.
#pragma once

#include <torch/torch.h>

#include <memory>
#include <optional>
#include <vector>

#include "base/prefetch.h"
#include "features/sample_source.h"

namespace graft {

/// Batches from a source, filled on a thread of its own while the one before is trained on: at
/// most two are ready at a time. Not thread-safe.
class Batches {
 public:
  /// `labels[r]` and `samples[r]` (an index into the dataset) belong to the source's row r; `shape`
  /// is one input's.
  Batches(std::unique_ptr<SampleSource> source, std::vector<int64_t> labels,
          std::vector<size_t> samples, std::vector<int64_t> shape);

  [[nodiscard]] size_t size() const { return labels_.size(); }
  [[nodiscard]] const std::vector<int64_t>& labels() const { return labels_; }
  [[nodiscard]] const std::vector<size_t>& samples() const { return samples_; }

  struct Batch {
    torch::Tensor inputs;       ///< (rows, shape)
    torch::Tensor labels;       ///< (rows)
    std::vector<int64_t> lost;  ///< rows left out, whose file can no longer be read
  };
  /// Begins an epoch: batches of `batch_size` rows in that order. Drops what is left of the last.
  void start(std::vector<int64_t> order, int batch_size, int epoch);
  /// The next batch, or nothing after the last. Throws what the source threw.
  std::optional<Batch> next();

 private:
  std::unique_ptr<SampleSource> source_;
  std::vector<int64_t> labels_;
  std::vector<size_t> samples_;
  std::vector<int64_t> shape_;
  std::optional<Prefetch<Batch>> ready_;
};

}  // namespace graft
