// What a long call may use, whom it tells, and when it is to stop.
//
//   std::stop_source stop;
//   graft::RunContext context{.threads = 4, .reporter = &mine, .stop = stop.get_token()};
//
// The library itself prints nothing, installs no signal handlers and changes nothing of the
// process.
#pragma once

#include <cstddef>
#include <stop_token>
#include <string_view>

#include "graft/error.h"

#pragma GCC visibility push(default)
namespace graft {

enum class Severity {
  detail,   ///< for whoever wants to know more
  info,     ///< what is going on
  note,     ///< something that the caller may want to change
  warning,  ///< something went wrong and the work goes on
};

/// How far a piece of work has come.
struct ProgressUpdate {
  std::string_view task;  ///< "computing features"
  std::string_view unit;  ///< "images"; "B" for bytes
  size_t done = 0;
  size_t total = 0;
  std::string_view extra;  ///< free text such as the running loss
  bool ended = false;      ///< the last update of this task
};

/// Told what happens. Calls may come from any of the library's threads, also at once, and hold up
/// the work until they return. What they throw ends the work.
class Reporter {
 public:
  Reporter() = default;
  virtual ~Reporter() = default;
  Reporter(const Reporter&) = delete;
  Reporter& operator=(const Reporter&) = delete;

  /// A line of text without line end, and without control characters but what names of files and
  /// classes hold.
  virtual void message(Severity severity, std::string_view text) { (void)severity, (void)text; }
  virtual void progress(const ProgressUpdate& update) { (void)update; }
};

inline constexpr int kMaxThreads = 1024;

struct RunContext {
  /// That compute at once; 0: all processors that the process may use. Up to as many again decode
  /// images meanwhile.
  int threads = 0;
  Reporter* reporter = nullptr;  ///< not owned; null: nobody is told
  std::stop_token stop{};        ///< work ends with Error(interrupted) soon after a request

  /// Throws Error(usage) for threads that are not from 0 to kMaxThreads.
  [[nodiscard]] int thread_count() const;
  void tell(Severity severity, std::string_view text) const {
    if (reporter != nullptr) reporter->message(severity, text);
  }
  /// Throws Error(interrupted) where a stop was requested.
  void check_stop() const;
};

}  // namespace graft
#pragma GCC visibility pop
