// Long work of the library, called from Python: without the GIL, told to Python, ended by Ctrl-C.
#pragma once

#include <pybind11/pybind11.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "graft/context.h"

namespace graft::python {

namespace py = pybind11;

/// Keeps what the library tells, from whichever of its threads, until the thread that Python called
/// from hands it over: no other thread ever needs the GIL.
class Events : public Reporter {
 public:
  void message(Severity severity, std::string_view text) override;
  void progress(const ProgressUpdate& update) override;
  /// Calls `tell(event: dict)` for each; the GIL is held. None: forgets them.
  void hand_over(const py::object& tell);

 private:
  struct Event {
    bool is_message = false;
    std::string severity;
    std::string text;  // or the task
    std::string unit;
    size_t done = 0;
    size_t total = 0;
    std::string extra;
    bool ended = false;
  };
  std::mutex mutex_;  // guards what follows
  std::vector<Event> events_;
};

/// Runs `body` in a thread of its own, without the GIL, while the calling thread waits, hands
/// events over and looks for signals. Ctrl-C, or what `tell` throws, requests the stop, waits for
/// `body` and is thrown; else what `body` throws. `body` may not touch Python.
void run_interruptibly(Events& events, std::stop_source& stop, const py::object& tell,
                       const std::function<void()>& body);

/// The same with events and a stop of its own; `body` gets a context with so many threads.
void run_interruptibly(int threads, const py::object& tell,
                       const std::function<void(const RunContext&)>& body);

/// An object with threads, in the process that made it. After a fork they are not there, so that
/// the child can neither use nor destroy it: it stays in memory.
template <typename T>
class InOneProcess {
 public:
  explicit InOneProcess(std::unique_ptr<T> object)
      : object_(std::move(object)), process_(::getpid()) {}
  ~InOneProcess() {
    if (!is_here()) static_cast<void>(object_.release());
  }
  InOneProcess(const InOneProcess&) = delete;
  InOneProcess& operator=(const InOneProcess&) = delete;
  [[nodiscard]] bool is_here() const { return process_ == ::getpid(); }
  [[nodiscard]] T& get() const {
    if (!is_here()) throw Error(ErrorKind::usage, "loaded before a fork: load it anew");
    return *object_;
  }

 private:
  std::unique_ptr<T> object_;
  pid_t process_;
};

}  // namespace graft::python
