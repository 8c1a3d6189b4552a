#include "serve/work_pool.h"

#include <utility>

#include "base/fail.h"

namespace graft::serving {

WorkPool::WorkPool(int threads) {
  try {
    for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
  } catch (const std::system_error&) {
    // Fewer than asked for do as well.
    if (threads_.empty()) fail(ErrorKind::io, "no thread can be started; see 'ulimit -u'");
  }
}

void WorkPool::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  std::unique_lock lock(mutex_);
  stopped_ = true;
  const std::deque<std::function<void()>> rest = std::exchange(pieces_, {});
  lock.unlock();
  for (const std::function<void()>& piece : rest) piece();
}

void WorkPool::add(std::function<void()> piece) {
  {
    const std::lock_guard lock(mutex_);
    if (!stopped_) pieces_.push_back(std::exchange(piece, nullptr));
  }
  if (piece)
    piece();
  else
    changed_.notify_one();
}

void WorkPool::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stopping_ || !pieces_.empty(); });
    if (pieces_.empty()) return;
    const std::function<void()> piece = std::move(pieces_.front());
    pieces_.pop_front();
    lock.unlock();
    piece();
    lock.lock();
  }
}

}  // namespace graft::serving
