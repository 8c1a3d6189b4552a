// Processors that this process may use, and a small pool for independent pieces of work.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <memory>

namespace graft {

/// Processors that this process may use: the affinity mask, limited by the CPU quotas of the
/// control groups that hold it (rounded up), at least 1. Quotas are read from /proc and /sys under
/// `root`.
int available_processors(const std::filesystem::path& root = "/");

/// A fixed set of threads for parallel loops. A loop runs on the pool's threads and the caller's.
/// One loop at a time; calls from several threads queue up. Idle threads sleep.
class ThreadPool {
 public:
  /// `threads` counts the caller's own, so ThreadPool(1) starts none. Where the system does not let
  /// that many start, the pool has fewer.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  [[nodiscard]] int threads() const;

  /// Calls body(i) once for each i in [0, count), in any order. If a call throws, the rest may be
  /// skipped and the first exception is thrown again here.
  void parallel_for(size_t count, const std::function<void(size_t)>& body);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace graft
