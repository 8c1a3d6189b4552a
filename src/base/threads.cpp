#include "base/threads.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <exception>
#include <fstream>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <vector>

#include "base/cgroup.h"

namespace graft {
namespace {

/// The processors that one control group allows.
std::optional<double> quota_of(const Cgroup& group) {
  double quota = 0;
  double period = 0;
  if (group.unified) {
    std::ifstream file(group.folder / "cpu.max");  // "max 100000" where there is no quota
    if (!(file >> quota >> period)) return std::nullopt;
  } else {
    std::ifstream quota_file(group.folder / "cpu.cfs_quota_us");  // -1 where there is none
    std::ifstream period_file(group.folder / "cpu.cfs_period_us");
    if (!(quota_file >> quota) || !(period_file >> period)) return std::nullopt;
  }
  if (quota <= 0 || period <= 0) return std::nullopt;
  return quota / period;
}

}  // namespace

int available_processors(const std::filesystem::path& root) {
  int count = static_cast<int>(std::thread::hardware_concurrency());
  cpu_set_t mask;
  CPU_ZERO(&mask);
  if (::sched_getaffinity(0, sizeof(mask), &mask) == 0) count = CPU_COUNT(&mask);
  for (const Cgroup& group : cgroups("cpu", root))
    if (const auto quota = quota_of(group); quota && *quota < count)
      count = static_cast<int>(std::ceil(*quota));
  return std::max(count, 1);
}

struct ThreadPool::State {
  std::vector<std::thread> workers;
  std::mutex loop_mutex;  // held for the length of one parallel_for
  std::mutex mutex;       // guards what follows
  std::condition_variable wake;
  std::condition_variable done;
  const std::function<void(size_t)>* body = nullptr;
  size_t count = 0;
  std::atomic<size_t> next{0};
  size_t generation = 0;
  size_t busy = 0;
  std::exception_ptr error;
  bool stop = false;

  void work(const std::function<void(size_t)>& run, size_t end) {
    try {
      for (size_t i = next.fetch_add(1); i < end; i = next.fetch_add(1)) run(i);
    } catch (...) {
      next.store(end);
      const std::lock_guard lock(mutex);
      if (!error) error = std::current_exception();
    }
  }

  void serve() {
    size_t seen = 0;
    std::unique_lock lock(mutex);
    while (true) {
      wake.wait(lock, [&] { return stop || generation != seen; });
      if (stop) return;
      seen = generation;
      if (body == nullptr) continue;  // woke after the loop had already ended
      const auto& run = *body;
      const size_t end = count;
      ++busy;
      lock.unlock();
      work(run, end);
      lock.lock();
      if (--busy == 0) done.notify_all();
    }
  }
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()) {
  state_->workers.reserve(static_cast<size_t>(std::max(threads, 1)));
  try {
    for (int i = 1; i < threads; ++i) state_->workers.emplace_back([this] { state_->serve(); });
  } catch (const std::system_error&) {
    // A limit on processes: those that there are do all the work.
  }
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->stop = true;
  }
  state_->wake.notify_all();
  for (auto& worker : state_->workers) worker.join();
}

int ThreadPool::threads() const { return static_cast<int>(state_->workers.size()) + 1; }

void ThreadPool::parallel_for(size_t count, const std::function<void(size_t)>& body) {
  if (count == 0) return;
  const std::lock_guard loop(state_->loop_mutex);
  {
    const std::lock_guard lock(state_->mutex);
    state_->body = &body;
    state_->count = count;
    state_->next.store(0);
    state_->error = nullptr;
    ++state_->generation;
  }
  state_->wake.notify_all();
  state_->work(body, count);
  std::unique_lock lock(state_->mutex);
  state_->body = nullptr;  // workers that wake late find nothing to do
  state_->done.wait(lock, [&] { return state_->busy == 0; });
  if (state_->error) std::rethrow_exception(state_->error);
}

}  // namespace graft
