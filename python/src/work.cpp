#include "work.h"

#include <array>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <optional>
#include <thread>

namespace graft::python {
namespace {

// How late Ctrl-C may be noticed, and how often a bar moves.
constexpr std::chrono::milliseconds kLook{100};
constexpr std::array<const char*, 4> kSeverities = {"detail", "info", "note", "warning"};

/// The end of a thread's work, waited for with a time limit.
class Finish {
 public:
  void announce() {
    const std::lock_guard lock(mutex_);
    finished_ = true;
    changed_.notify_all();
  }
  bool wait() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kLook, [&] { return finished_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool finished_ = false;
};

}  // namespace

void Events::message(Severity severity, std::string_view text) {
  const std::lock_guard lock(mutex_);
  Event event;
  event.is_message = true;
  event.severity = kSeverities.at(static_cast<size_t>(severity));
  event.text = text;
  events_.push_back(std::move(event));
}

void Events::progress(const ProgressUpdate& u) {
  const std::lock_guard lock(mutex_);
  // Of updates that nobody has seen yet the last one says all.
  if (!events_.empty() && !events_.back().is_message && events_.back().text == u.task)
    events_.pop_back();
  events_.push_back({false, "", std::string(u.task), std::string(u.unit), u.done, u.total,
                     std::string(u.extra), u.ended});
}

void Events::hand_over(const py::object& tell) {
  std::vector<Event> events;
  {
    const std::lock_guard lock(mutex_);
    events.swap(events_);
  }
  if (tell.is_none()) return;
  for (const Event& e : events) {
    py::dict event;
    event["event"] = e.is_message ? "message" : "progress";
    const auto text = [](const std::string& bytes) {  // names of files need not be UTF-8
      return py::reinterpret_steal<py::str>(
          PyUnicode_DecodeUTF8(bytes.data(), static_cast<Py_ssize_t>(bytes.size()), "replace"));
    };
    if (e.is_message) {
      event["severity"] = e.severity;
      event["text"] = text(e.text);
    } else {
      event["task"] = text(e.text);
      event["unit"] = e.unit;
      event["done"] = e.done;
      event["total"] = e.total;
      event["extra"] = text(e.extra);
      event["ended"] = e.ended;
    }
    tell(event);
  }
}

void run_interruptibly(Events& events, std::stop_source& stop, const py::object& tell,
                       const std::function<void()>& body) {
  Finish finish;
  std::exception_ptr error;
  std::optional<py::error_already_set> raised;
  {
    std::jthread worker([&] {
      try {
        body();
      } catch (...) {
        error = std::current_exception();
      }
      finish.announce();
    });
    for (bool finished = false; !finished;) {
      {
        const py::gil_scoped_release release;
        finished = finish.wait();
      }
      if (raised) continue;
      try {
        if (PyErr_CheckSignals() != 0) throw py::error_already_set();
        events.hand_over(tell);
      } catch (py::error_already_set& now) {
        raised.emplace(now);
        stop.request_stop();
      }
    }
  }
  if (raised) throw py::error_already_set(*raised);
  if (error) std::rethrow_exception(error);
}

void run_interruptibly(int threads, const py::object& tell,
                       const std::function<void(const RunContext&)>& body) {
  Events events;
  std::stop_source stop;
  run_interruptibly(events, stop, tell, [&] { body({threads, &events, stop.get_token()}); });
}

}  // namespace graft::python
