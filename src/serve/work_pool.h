// Threads that take pieces of work in the order in which they came.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace graft::serving {

/// Unbounded: whoever adds bounds what is under way. Pieces must not throw. Thread-safe.
class WorkPool {
 public:
  explicit WorkPool(int threads);
  ~WorkPool() { stop(); }
  WorkPool(const WorkPool&) = delete;
  WorkPool& operator=(const WorkPool&) = delete;

  /// After stop() the piece is done by the caller.
  void add(std::function<void()> piece);
  /// Does what is left, and ends the threads.
  void stop();

 private:
  void work();

  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::deque<std::function<void()>> pieces_;
  bool stopping_ = false;
  bool stopped_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace graft::serving
