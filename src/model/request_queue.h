// Images of many callers through few engines.
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "engine/executor.h"

namespace graft {

/// Each caller waits for its own images. Whoever finds an engine free takes what has gathered
/// meanwhile, of whichever callers, as one batch: many callers with one image each are as fast as
/// one with many. No lock is held while an engine runs. Thread-safe.
class RequestQueue {
 public:
  /// The engines have the same weights and inputs and outputs of one size.
  explicit RequestQueue(std::vector<std::unique_ptr<engine::Executor>> engines);

  /// `inputs`: count × (C, H, W), `outputs`: count × elements. Throws what the engine throws.
  void run(std::span<const float> inputs, int count, std::span<float> outputs);

  /// What all engines take for batches of `count` images.
  engine::EngineMemory prepare(int count);

 private:
  struct Request {
    const float* in;
    float* out;
    int count;
    bool done = false;
    std::exception_ptr error;
  };
  struct Worker {
    std::unique_ptr<engine::Executor> engine;
    std::vector<float> inputs;
    std::vector<float> outputs;
  };

  void serve(Worker& worker, const std::vector<Request*>& batch);

  size_t in_;
  size_t out_;
  int max_batch_;
  std::deque<Worker> workers_;  // never moved
  std::mutex mutex_;            // guards what follows, and the flags of requests
  std::condition_variable changed_;
  std::vector<Worker*> idle_;
  std::deque<Request*> waiting_;
};

}  // namespace graft
