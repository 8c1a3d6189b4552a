#include "engine/team.h"

#include <algorithm>
#include <system_error>

namespace graft::engine {

Team::Team(int size) {
  threads_.reserve(static_cast<size_t>(std::max(size, 1)));
  try {
    for (int i = 1; i < size; ++i) threads_.emplace_back([this, i] { serve(i); });
  } catch (const std::system_error&) {
    // A limit on processes: those that there are do all the work.
  }
  size_ = static_cast<int>(threads_.size()) + 1;
  barrier_.emplace(size_);
}

Team::~Team() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Team::Member::next_region() {
  team_.barrier_->arrive_and_wait();
  ++region_;
  // The other counter was last used in the region that has just ended, and is not used before the
  // next barrier.
  if (index_ == 0) team_.counters_[(region_ + 1) & 1U].next.store(0);
}

void Team::work(int index, const std::function<void(Member&)>& body) {
  Member member(*this, index);
  body(member);
}

void Team::serve(int index) {
  unsigned seen = 0;
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [&] { return stop_ || generation_ != seen; });
    if (stop_) return;
    seen = generation_;
    const auto& body = *body_;
    lock.unlock();
    work(index, body);
    lock.lock();
    if (--running_ == 0) done_.notify_one();
  }
}

void Team::run(const std::function<void(Member&)>& body) {
  const std::lock_guard one_at_a_time(run_mutex_);
  for (Counter& counter : counters_) counter.next.store(0);
  {
    const std::lock_guard lock(mutex_);
    body_ = &body;
    running_ = size_ - 1;
    ++generation_;
  }
  wake_.notify_all();
  work(0, body);
  std::unique_lock lock(mutex_);
  done_.wait(lock, [&] { return running_ == 0; });
}

}  // namespace graft::engine
