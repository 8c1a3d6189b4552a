#include "train/group_link.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <utility>

namespace graft {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kTick{250};
// Where this process waits for a key.
constexpr milliseconds kQuickTick{10};
// Without a sign of life for so long a process is the first to be blamed for an exchange that
// failed: several ticks, and less than a connection to a process that was killed needs to break.
constexpr milliseconds kSilence{1500};
// For rank 0 to find out who it was, and for the others to hear it.
constexpr milliseconds kVerdict{4000};
constexpr const char* kFailed = "failed";
constexpr const char* kLeft = "left";

std::string beat_key(size_t rank) { return fmt::format("beat/{}", rank); }

}  // namespace

void GroupLink::start(std::function<void(const std::string&, const std::string&)> set,
                      std::function<std::optional<std::string>(const std::string&)> get,
                      std::function<int64_t(const std::string&)> add) {
  set_ = std::move(set);
  get_ = std::move(get);
  add_ = std::move(add);
  for (Other& other : others_) other.changed = Clock::now();
  answered_ = Clock::now();
  std::thread([self = shared_from_this()] { self->run(); }).detach();
}

void GroupLink::run() {
  try {
    while (true) {
      serve_requests();
      tick();
      std::unique_lock lock(mutex_);
      if (leaving_) {
        const bool alone =
            place_.rank != 0 || std::all_of(others_.begin() + 1, others_.end(),
                                            [](const Other& other) { return other.left; });
        if (alone) break;
      }
      changed_.wait_for(lock, requests_.empty() && !leaving_ ? kTick : kQuickTick);
    }
    set_(beat_key(static_cast<size_t>(place_.rank)), kLeft);
  } catch (const std::exception&) {
    // The store lives in rank 0.
    const std::lock_guard lock(mutex_);
    if (!leaving_ && failure_.empty())
      note(fmt::format("{} has ended or cannot be reached", names_[0]));
  }
  const std::lock_guard lock(mutex_);
  ended_ = true;
  changed_.notify_all();
}

/// With the mutex held.
void GroupLink::note(const std::string& why) {
  if (failure_.empty()) failure_ = why;
  stop.request_stop();
  changed_.notify_all();
}

void GroupLink::tick() {
  const auto me = static_cast<size_t>(place_.rank);
  set_(beat_key(me), fmt::format("{} {}", ++ticks_, exchanges.load()));
  const size_t begin = me == 0 ? 1 : 0;
  const size_t end = me == 0 ? others_.size() : 1;
  for (size_t k = begin; k < end; ++k) {
    const std::optional<std::string> beat = get_(beat_key(k));
    if (!beat) continue;
    const std::lock_guard lock(mutex_);
    Other& other = others_[k];
    if (other.beat == *beat) continue;
    other.beat = *beat;
    other.changed = Clock::now();
    other.left = *beat == kLeft;
    if (const size_t space = beat->find(' '); space != std::string::npos)
      other.exchanges = std::strtoull(beat->c_str() + space, nullptr, 10);
  }
  std::string to_tell;
  bool failed = false;
  {
    const std::lock_guard lock(mutex_);
    answered_ = Clock::now();
    for (size_t k = begin; k < end && failure_.empty(); ++k)
      if (!others_[k].left && answered_ - others_[k].changed > group_timeout()) {
        to_tell_ = fmt::format("{} has given no sign of life for {} s", names_[k],
                               group_timeout().count() / 1000);
        note(to_tell_);
      }
    to_tell = to_tell_;
    failed = !failure_.empty();
  }
  std::optional<std::string> told = get_(kFailed);
  if (!told && !to_tell.empty()) {
    set_(kFailed, to_tell);
    told = to_tell;
  }
  if (!told) return;
  if (!failed) {
    const std::lock_guard lock(mutex_);
    note(*told);
  }
  if (me != 0) {
    // Rank 0 goes once it has heard of all.
    if (!get_("heard/0")) return;
    {
      const std::lock_guard lock(mutex_);
      first_heard_ = true;
      changed_.notify_all();
    }
    set_(fmt::format("heard/{}", me), "1");
    return;
  }
  set_("heard/0", "1");
  for (size_t k = 1; k < others_.size(); ++k)
    if (get_(fmt::format("heard/{}", k))) {
      const std::lock_guard lock(mutex_);
      others_[k].heard = true;
    }
}

void GroupLink::serve_requests() {
  std::vector<std::shared_ptr<Request>> open;
  {
    const std::lock_guard lock(mutex_);
    open = requests_;
  }
  for (const std::shared_ptr<Request>& request : open) {
    std::optional<std::string> value;
    switch (request->kind) {
      case Request::Kind::get:
        value = get_(request->key);
        break;
      case Request::Kind::set:
        set_(request->key, value.emplace(request->value));
        break;
      case Request::Kind::take:
        value = std::to_string(add_(request->key) - 1);
        break;
    }
    const std::lock_guard lock(mutex_);
    if (value) request->value = *value;
    request->done = value.has_value();
    if (request->done || request->dropped) std::erase(requests_, request);
    if (request->done) changed_.notify_all();
  }
}

bool GroupLink::finish(const std::shared_ptr<Request>& request, const std::stop_token& wanted) {
  std::unique_lock lock(mutex_);
  requests_.push_back(request);
  changed_.notify_all();
  while (!request->done) {
    if (Clock::now() - answered_ > group_timeout())
      note(fmt::format("{} cannot be reached", names_[0]));
    if (ended_ || !failure_.empty() || wanted.stop_requested()) {
      request->dropped = true;
      std::erase(requests_, request);
      return false;
    }
    changed_.wait_for(lock, milliseconds(50));
  }
  return true;
}

bool GroupLink::put(const std::string& key, const std::string& value) {
  auto request = std::make_shared<Request>();
  request->kind = Request::Kind::set;
  request->key = key;
  request->value = value;
  return finish(request, {});
}

std::optional<std::string> GroupLink::wait_for(const std::string& key,
                                               const std::stop_token& wanted) {
  auto request = std::make_shared<Request>();
  request->key = key;
  if (!finish(request, wanted)) return std::nullopt;
  return request->value;
}

std::optional<uint64_t> GroupLink::take(const std::string& key, const std::stop_token& wanted) {
  auto request = std::make_shared<Request>();
  request->kind = Request::Kind::take;
  request->key = key;
  if (!finish(request, wanted)) return std::nullopt;
  return std::strtoull(request->value.c_str(), nullptr, 10);
}

std::string GroupLink::failure() {
  const std::lock_guard lock(mutex_);
  return failure_;
}

void GroupLink::end(const std::string& why) {
  const std::lock_guard lock(mutex_);
  if (failure_.empty()) to_tell_ = why;
  note(why);
}

std::string GroupLink::blame(const std::string& why) {
  const Clock::time_point begin = Clock::now();
  std::unique_lock lock(mutex_);
  while (Clock::now() - begin < kVerdict && failure_.empty() && !ended_) {
    const Clock::time_point now = Clock::now();
    if (place_.rank == 0) {
      size_t silent = 0;
      for (size_t k = 1; k < others_.size(); ++k)
        if (!others_[k].left && now - others_[k].changed > kSilence &&
            (silent == 0 || others_[k].changed < others_[silent].changed))
          silent = k;
      if (silent > 0) {
        to_tell_ = fmt::format("{} has ended or hangs", names_[silent]);
        note(to_tell_);
        break;
      }
    } else if (now - answered_ > kSilence * 2) {
      note(fmt::format("{} cannot be reached", names_[0]));
      break;
    }
    changed_.wait_for(lock, milliseconds(50));
  }
  if (failure_.empty() && place_.rank == 0) {
    // All are alive: who has not come as far as this process?
    size_t last = 0;
    for (size_t k = 1; k < others_.size(); ++k)
      if (others_[k].exchanges < exchanges &&
          (last == 0 || others_[k].exchanges < others_[last].exchanges))
        last = k;
    to_tell_ = last > 0 ? fmt::format("{} hangs: the others have waited {} s for it", names_[last],
                                      group_timeout().count() / 1000)
                        : fmt::format("the connection between processes broke: {}", why);
    note(to_tell_);
  }
  if (failure_.empty()) note(fmt::format("the connection between processes broke: {}", why));
  return failure_;
}

bool GroupLink::first_answers() {
  if (place_.rank == 0) return true;
  // It has heard of the failure: then it says so itself.
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, kVerdict, [&] { return first_heard_ || ended_; });
  return first_heard_;
}

void GroupLink::linger() {
  const Clock::time_point begin = Clock::now();
  std::unique_lock lock(mutex_);
  while (Clock::now() - begin < kVerdict && !ended_) {
    const bool all = std::all_of(others_.begin() + 1, others_.end(), [](const Other& other) {
      return other.left || other.heard || Clock::now() - other.changed > kSilence;
    });
    if (all) break;
    changed_.wait_for(lock, milliseconds(50));
  }
}

void GroupLink::leave() {
  std::unique_lock lock(mutex_);
  leaving_ = true;
  changed_.notify_all();
  changed_.wait_for(lock, place_.rank == 0 ? group_timeout() : kVerdict, [&] { return ended_; });
}

}  // namespace graft
