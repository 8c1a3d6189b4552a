// Work done ahead of its use, on a thread of its own.
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

namespace graft {

/// Calls `make` again and again on a thread of its own until it returns nothing, and keeps at most
/// two results ready. Where no thread can be started, next() makes what it returns. next() is for
/// one thread.
template <typename T>
class Prefetch {
 public:
  explicit Prefetch(std::function<std::optional<T>()> make) : make_(std::move(make)) {
    try {
      thread_ = std::thread([this] { produce(); });
    } catch (const std::system_error&) {
      // A limit on processes.
    }
  }

  /// Waits for the result that is being made; what is ready is dropped.
  ~Prefetch() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    if (thread_.joinable()) thread_.join();
  }
  Prefetch(const Prefetch&) = delete;
  Prefetch& operator=(const Prefetch&) = delete;

  /// The next result, or nothing after the last. Throws what `make` threw.
  std::optional<T> next() {
    if (!thread_.joinable()) return make_();
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !ready_.empty() || finished_; });
    if (ready_.empty()) {
      if (error_) std::rethrow_exception(error_);
      return std::nullopt;
    }
    T result = std::move(ready_.front());
    ready_.pop_front();
    lock.unlock();
    changed_.notify_all();
    return result;
  }

 private:
  static constexpr size_t kReady = 2;

  void produce() {
    try {
      while (std::optional<T> result = make_()) {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return ready_.size() < kReady || stop_; });
        if (stop_) return;
        ready_.push_back(std::move(*result));
        lock.unlock();
        changed_.notify_all();
      }
    } catch (...) {
      const std::lock_guard lock(mutex_);
      error_ = std::current_exception();
    }
    {
      const std::lock_guard lock(mutex_);
      finished_ = true;
    }
    changed_.notify_all();
  }

  std::function<std::optional<T>()> make_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<T> ready_;
  std::exception_ptr error_;
  bool finished_ = false;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace graft
