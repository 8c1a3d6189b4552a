// Images of many requests, computed as batches.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <stop_token>
#include <thread>
#include <vector>

#include "serve/model_store.h"

namespace graft::serving {

/// One image on its way through a model.
struct Inference {
  ModelPtr model;
  std::vector<float> input;  ///< (3, H, W), as Classifier::run takes it
  std::stop_token gone;
  std::chrono::steady_clock::time_point deadline;
  /// Called once, from the queue's thread, with the logits; empty where it was given up (see
  /// `gone` and `deadline`). Must be quick and not throw.
  std::function<void(std::vector<float> logits)> done;
};

/// What a queue has done so far.
struct QueueCounts {
  uint64_t images = 0;
  uint64_t batches = 0;
  uint64_t dropped = 0;  ///< given up before they were computed
  double busy_seconds = 0;
  size_t waiting = 0;
};

/// One thread computes at a time, on all threads of the models' classifiers, and takes up to a
/// batch of what has gathered for one model meanwhile. While more images are announced, a batch
/// that is not full waits for them, but none longer than `most_wait`. Thread-safe.
class InferenceQueue {
 public:
  explicit InferenceQueue(std::chrono::microseconds most_wait);
  /// What waits is given up.
  ~InferenceQueue();
  InferenceQueue(const InferenceQueue&) = delete;
  InferenceQueue& operator=(const InferenceQueue&) = delete;

  /// An image is being decoded: add() or withdraw() follows.
  void announce(size_t images = 1);
  void withdraw(size_t images = 1);
  void add(Inference inference);
  /// Runs between two batches, on the queue's thread, so that it does not compete with them: other
  /// work on a model's engines. Must not throw.
  void add_task(std::function<void()> task);

  [[nodiscard]] QueueCounts counts() const;

 private:
  void work();
  std::vector<Inference> take_batch(std::unique_lock<std::mutex>& lock);
  /// Whether logits_ are those of the batch.
  bool compute(const std::vector<Inference>& batch);
  void answer(std::vector<Inference>& batch, bool computed) const;

  const std::chrono::microseconds most_wait_;
  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  struct Waiting {
    Inference inference;
    std::chrono::steady_clock::time_point since;
  };
  std::deque<Waiting> waiting_;
  std::deque<std::function<void()>> tasks_;
  size_t announced_ = 0;
  bool stopping_ = false;
  QueueCounts counts_;
  std::vector<float> inputs_;  // of the queue's thread, like `logits_`
  std::vector<float> logits_;
  std::thread thread_;
};

}  // namespace graft::serving
