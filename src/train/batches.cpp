#include "train/batches.h"

#include <algorithm>
#include <utility>

namespace graft {
namespace {

constexpr size_t kReady = 2;

}  // namespace

Batches::Batches(std::unique_ptr<SampleSource> source, std::vector<int64_t> labels,
                 std::vector<int64_t> shape)
    : source_(std::move(source)), labels_(std::move(labels)), shape_(std::move(shape)) {}

Batches::~Batches() { stop(); }

void Batches::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
  ready_.clear();
  error_ = nullptr;
  stopping_ = false;
  finished_ = true;
}

void Batches::start(std::vector<int64_t> order, int batch_size, int epoch) {
  stop();
  finished_ = false;
  thread_ = std::thread([this, order = std::move(order), batch_size, epoch] {
    try {
      produce(order, static_cast<size_t>(batch_size), epoch);
    } catch (...) {
      const std::lock_guard lock(mutex_);
      error_ = std::current_exception();
    }
    {
      const std::lock_guard lock(mutex_);
      finished_ = true;
    }
    changed_.notify_all();
  });
}

void Batches::produce(const std::vector<int64_t>& order, size_t batch_size, int epoch) {
  for (size_t at = 0; at < order.size(); at += batch_size) {
    const std::span<const int64_t> rows(&order[at], std::min(batch_size, order.size() - at));
    std::vector<int64_t> shape{static_cast<int64_t>(rows.size())};
    shape.insert(shape.end(), shape_.begin(), shape_.end());
    Batch batch{torch::empty(shape), torch::empty({shape[0]}, torch::kLong)};
    source_->fill(rows, epoch, batch.inputs.data_ptr<float>());
    std::transform(rows.begin(), rows.end(), batch.labels.data_ptr<int64_t>(),
                   [&](int64_t row) { return labels_[static_cast<size_t>(row)]; });
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return ready_.size() < kReady || stopping_; });
    if (stopping_) return;
    ready_.push_back(std::move(batch));
    lock.unlock();
    changed_.notify_all();
  }
}

std::optional<Batches::Batch> Batches::next() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return !ready_.empty() || finished_; });
  if (ready_.empty()) {
    if (error_) std::rethrow_exception(error_);
    return std::nullopt;
  }
  Batch batch = std::move(ready_.front());
  ready_.pop_front();
  lock.unlock();
  changed_.notify_all();
  return batch;
}

}  // namespace graft
