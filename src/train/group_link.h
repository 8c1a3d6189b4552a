// The thread of a group's member that keeps in touch with the others.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "base/group_times.h"
#include "graft/group.h"

namespace graft {

/// Everything that goes through the store, on a thread of its own, since a call of the store waits
/// for ever where the network does not answer. Held by its thread too: a thread that hangs is left
/// behind.
class GroupLink : public std::enable_shared_from_this<GroupLink> {
 public:
  using Clock = std::chrono::steady_clock;

  GroupLink(const GroupPlace& place, std::vector<std::string> names)
      : place_(place), names_(std::move(names)), others_(static_cast<size_t>(place.size)) {}

  /// Begins to talk through a store that nobody else uses from now on. What they throw means that
  /// it is gone.
  void start(std::function<void(const std::string&, const std::string&)> set,
             std::function<std::optional<std::string>(const std::string&)> get,
             std::function<int64_t(const std::string&)> add);
  /// Sets a key, or waits for one; false where the group has ended.
  bool put(const std::string& key, const std::string& value);
  std::optional<std::string> wait_for(const std::string& key, const std::stop_token& stop);
  /// How often a key has been taken before, by all processes; nothing where the group has ended.
  std::optional<uint64_t> take(const std::string& key, const std::stop_token& stop);

  /// Why the group has ended; empty: it has not.
  [[nodiscard]] std::string failure();
  /// The group ends with these words, unless it has ended already; tells the others.
  void end(const std::string& why);
  /// Who keeps the others waiting in an exchange that failed with `why`.
  std::string blame(const std::string& why);
  /// Whether rank 0 has heard of the end, and will say so.
  [[nodiscard]] bool first_answers();
  /// Rank 0 after the end: gives the others the time to hear of it.
  void linger();
  /// No more signs of life, as the work is done. Rank 0 waits for the others.
  void leave();

  std::stop_source stop;
  std::atomic<uint64_t> exchanges = 0;  // begun

 private:
  struct Request {
    enum class Kind { get, set, take } kind = Kind::get;
    std::string key;
    std::string value;
    bool done = false;
    bool dropped = false;
  };
  struct Other {
    std::string beat;
    Clock::time_point changed = Clock::now();
    uint64_t exchanges = 0;
    bool left = false;
    bool heard = false;  // of the failure
  };

  void run();
  void tick();
  void serve_requests();
  void note(const std::string& why);
  bool finish(const std::shared_ptr<Request>& request, const std::stop_token& wanted);

  const GroupPlace place_;
  const std::vector<std::string> names_;
  std::function<void(const std::string&, const std::string&)> set_;
  std::function<std::optional<std::string>(const std::string&)> get_;
  std::function<int64_t(const std::string&)> add_;
  uint64_t ticks_ = 0;

  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::vector<std::shared_ptr<Request>> requests_;
  std::vector<Other> others_;  // by rank; of rank 0 alone in all but rank 0
  std::string failure_;
  std::string to_tell_;  // a failure that the store does not have yet
  Clock::time_point answered_ = Clock::now();
  bool first_heard_ = false;  // rank 0 of the failure
  bool ended_ = false;        // the thread
  bool leaving_ = false;
};

}  // namespace graft
