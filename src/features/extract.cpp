#include "features/extract.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "base/file.h"
#include "base/hash.h"
#include "base/signals.h"
#include "base/threads.h"
#include "graft/error.h"

namespace graft {
namespace {

constexpr size_t kReadyBatches = 2;  // decoded ahead of the engine

struct Item {
  size_t index = 0;
  Image image;
  std::string error;  // empty: the image is good
};

/// Decodes batches on a thread of its own, ahead of the consumer by at most kReadyBatches.
class Prefetcher {
 public:
  explicit Prefetcher(const ExtractJob& job)
      : job_(job), pool_(job.threads), thread_([this] { produce(); }) {}

  ~Prefetcher() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;

  /// The next batch, or nothing after the last.
  std::optional<std::vector<Item>> next() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !ready_.empty() || finished_; });
    if (ready_.empty()) {
      if (error_) std::rethrow_exception(error_);
      return std::nullopt;
    }
    std::vector<Item> batch = std::move(ready_.front());
    ready_.pop_front();
    lock.unlock();
    changed_.notify_all();
    return batch;
  }

 private:
  void produce() {
    try {
      const auto step = static_cast<size_t>(job_.batch);
      for (size_t at = 0; at < job_.paths.size(); at += step) {
        std::vector<Item> batch(std::min(step, job_.paths.size() - at));
        pool_.parallel_for(batch.size(), [&](size_t i) { batch[i] = load(at + i); });
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return ready_.size() < kReadyBatches || stop_; });
        if (stop_) return;
        ready_.push_back(std::move(batch));
        lock.unlock();
        changed_.notify_all();
      }
    } catch (...) {
      const std::lock_guard lock(mutex_);
      error_ = std::current_exception();
    }
    const std::lock_guard lock(mutex_);
    finished_ = true;
    changed_.notify_all();
  }

  [[nodiscard]] Item load(size_t index) const {
    Item item{index, {}, {}};
    try {
      const std::vector<std::byte> bytes = read_file(job_.paths[index]);
      std::string hash;
      if (job_.keys != nullptr || job_.view) hash = content_hash(bytes);
      if (job_.keys != nullptr) job_.keys->at(index) = view_key(job_, hash);
      item.image =
          make_view(decode_image(bytes, printable(job_.paths[index])), job_.input_width,
                    job_.input_height, job_.preprocessing, job_.view ? job_.view(hash) : View());
    } catch (const Error& error) {
      item.error = error.what();
    }
    return item;
  }

  const ExtractJob& job_;
  ThreadPool pool_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::vector<Item>> ready_;
  std::exception_ptr error_;
  bool finished_ = false;
  bool stop_ = false;
  std::thread thread_;  // last: starts when the rest is there
};

}  // namespace

std::string view_key(const ExtractJob& job, const std::string& hash) {
  return job.view ? hash + job.view(hash).id() : hash;
}

void load_inputs(const ExtractJob& job, const std::function<void(size_t, const Image&)>& sink,
                 const std::function<void(size_t, const std::string&)>& on_error) {
  Progress progress(job.label, job.paths.size(), "images", job.verbosity);
  Prefetcher prefetcher(job);
  size_t done = 0;
  while (auto batch = prefetcher.next()) {
    for (const Item& item : *batch) {
      if (item.error.empty())
        sink(item.index, item.image);
      else
        on_error(item.index, item.error);
    }
    done += batch->size();
    progress.update(done);
    check_interrupted();
  }
  progress.finish();
}

void extract(const ExtractJob& job, Engine& engine,
             const std::function<void(size_t, std::span<const float>)>& sink,
             const std::function<void(size_t, const std::string&)>& on_error) {
  Prefetcher prefetcher(job);
  // Weights are packed while the first pictures are decoded, and before the clock starts.
  if (!job.paths.empty())
    engine.prepare(static_cast<int>(std::min<size_t>(job.batch, job.paths.size())));
  Progress progress(job.label, job.paths.size(), "images", job.verbosity);
  const auto in = static_cast<size_t>(engine.input_elements());
  const auto out = static_cast<size_t>(engine.output_elements());
  std::vector<float> inputs(in * job.batch);
  std::vector<float> outputs(out * job.batch);
  size_t done = 0;
  while (auto batch = prefetcher.next()) {
    std::vector<const Item*> good;
    for (const Item& item : *batch)
      if (item.error.empty()) good.push_back(&item);
    for (size_t i = 0; i < good.size(); ++i)
      to_input(good[i]->image, job.preprocessing, &inputs[i * in]);
    engine.run(inputs.data(), static_cast<int>(good.size()), outputs.data());
    size_t row = 0;
    for (const Item& item : *batch) {
      if (item.error.empty())
        sink(item.index, {&outputs[out * row++], out});
      else
        on_error(item.index, item.error);
    }
    done += batch->size();
    progress.update(done);
    check_interrupted();
  }
  progress.finish();
}

}  // namespace graft
