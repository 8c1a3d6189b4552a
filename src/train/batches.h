// Training batches, prepared ahead of their use.
#pragma once

#include <torch/torch.h>

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/prefetch.h"
#include "features/sample_source.h"

namespace graft {

/// Batches from a source, filled on a thread of its own while the one before is trained on: at
/// most two are ready at a time. Not thread-safe.
class Batches {
 public:
  /// `labels[r]` and `samples[r]` (an index into the dataset) belong to the source's row r; `shape`
  /// is one input's. `pinned`: in memory that a GPU reads while the processor goes on.
  Batches(std::unique_ptr<SampleSource> source, std::vector<int64_t> labels,
          std::vector<size_t> samples, std::vector<int64_t> shape, bool pinned = false);

  [[nodiscard]] size_t size() const { return labels_.size(); }
  [[nodiscard]] const std::vector<int64_t>& labels() const { return labels_; }
  [[nodiscard]] const std::vector<size_t>& samples() const { return samples_; }

  struct Batch {
    torch::Tensor inputs;       ///< (rows, shape)
    torch::Tensor labels;       ///< (rows)
    std::vector<int64_t> lost;  ///< rows left out, whose file can no longer be read
    int64_t first = 0;          ///< row of the whole batch that these begin with
    /// Of the whole batch, of which these rows may be one process's share.
    std::vector<int64_t> whole_labels{};
  };
  /// The share of each batch that is made: of `parts` of about one size the `part`-th.
  struct Share {
    int part = 0;
    int parts = 1;
  };
  /// Begins an epoch: batches of `batch_size` rows in that order. Drops what is left of the last.
  void start(std::vector<int64_t> order, int batch_size, int epoch, Share share);
  void start(std::vector<int64_t> order, int batch_size, int epoch) {
    start(std::move(order), batch_size, epoch, {});
  }
  /// The next batch, or nothing after the last. Throws what the source threw.
  std::optional<Batch> next();

 private:
  std::unique_ptr<SampleSource> source_;
  std::vector<int64_t> labels_;
  std::vector<size_t> samples_;
  std::vector<int64_t> shape_;
  bool pinned_;
  std::optional<Prefetch<Batch>> ready_;
};

}  // namespace graft
