#include "train/batches.h"

#include <algorithm>
#include <utility>

namespace graft {

Batches::Batches(std::unique_ptr<SampleSource> source, std::vector<int64_t> labels,
                 std::vector<size_t> samples, std::vector<int64_t> shape, bool pinned)
    : source_(std::move(source)),
      labels_(std::move(labels)),
      samples_(std::move(samples)),
      shape_(std::move(shape)),
      pinned_(pinned) {}

void Batches::start(std::vector<int64_t> order, int batch_size, int epoch, Share share) {
  ready_.reset();  // its thread uses the source
  ready_.emplace([this, order = std::move(order), step = static_cast<size_t>(batch_size), epoch,
                  share, at = size_t{0}]() mutable -> std::optional<Batch> {
    if (at >= order.size()) return std::nullopt;
    const std::span<const int64_t> whole(&order[at], std::min(step, order.size() - at));
    at += whole.size();
    const auto edge = [&](int part) {
      return whole.size() * static_cast<size_t>(part) / static_cast<size_t>(share.parts);
    };
    const std::span<const int64_t> rows =
        whole.subspan(edge(share.part), edge(share.part + 1) - edge(share.part));
    std::vector<int64_t> shape{static_cast<int64_t>(rows.size())};
    shape.insert(shape.end(), shape_.begin(), shape_.end());
    const auto options = torch::TensorOptions().pinned_memory(pinned_);
    Batch batch{
        torch::empty(shape, options), torch::empty({shape[0]}, options.dtype(torch::kLong)), {}};
    batch.first = static_cast<int64_t>(edge(share.part));
    if (share.parts > 1)
      for (const int64_t row : whole)
        batch.whole_labels.push_back(labels_[static_cast<size_t>(row)]);
    std::vector<size_t> lost;
    if (!rows.empty()) lost = source_->fill(rows, epoch, batch.inputs.data_ptr<float>());
    auto* label = batch.labels.data_ptr<int64_t>();
    for (size_t k = 0; k < rows.size(); ++k) {
      if (std::binary_search(lost.begin(), lost.end(), k))
        batch.lost.push_back(rows[k]);
      else
        *label++ = labels_[static_cast<size_t>(rows[k])];
    }
    if (!lost.empty()) {
      const auto good = static_cast<int64_t>(rows.size() - lost.size());
      batch.inputs = batch.inputs.narrow(0, 0, good);
      batch.labels = batch.labels.narrow(0, 0, good);
    }
    return batch;
  });
}

std::optional<Batches::Batch> Batches::next() { return ready_ ? ready_->next() : std::nullopt; }

}  // namespace graft
