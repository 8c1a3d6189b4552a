// A team of threads that run one function together, with barriers inside.
#pragma once

#include <atomic>
#include <barrier>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

namespace graft::engine {

/// Threads sleep between runs. One run at a time: those that come meanwhile queue up.
class Team {
 public:
  /// `size` counts the caller's thread. Where the system does not let that many start, the team is
  /// smaller.
  explicit Team(int size);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  [[nodiscard]] int size() const { return size_; }

  /// A member's view of a run: work is handed out unit by unit within a region; a barrier ends it.
  class Member {
   public:
    Member(Team& team, int index) : team_(team), index_(index) {}
    [[nodiscard]] int index() const { return index_; }
    [[nodiscard]] int team_size() const { return team_.size_; }
    /// The next unit of the current region: 0, 1, 2, … over all members together.
    int take() { return team_.counters_[region_ & 1U].next.fetch_add(1); }
    /// Waits for all members; a new region begins.
    void next_region();

   private:
    Team& team_;
    int index_;
    unsigned region_ = 0;
  };

  /// Calls body once on each member, the caller being member 0, and returns when all are done. The
  /// body must not throw or call run(), and all members must pass the same number of regions.
  void run(const std::function<void(Member&)>& body);

 private:
  struct alignas(64) Counter {  // a cache line of its own
    std::atomic<int> next{0};
  };
  void serve(int index);
  void work(int index, const std::function<void(Member&)>& body);

  int size_ = 1;
  Counter counters_[2];  // this region's, and the next one's, which member 0 resets meanwhile
  std::optional<std::barrier<>> barrier_;  // made for the members that there are
  std::mutex run_mutex_;                   // held by a run, for others to wait at
  std::mutex mutex_;                       // guards what follows
  std::condition_variable wake_;
  std::condition_variable done_;
  const std::function<void(Member&)>* body_ = nullptr;
  unsigned generation_ = 0;
  int running_ = 0;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace graft::engine
