// What the library tells, on standard error.
#pragma once

#include <chrono>
#include <mutex>
#include <string>

#include "cli/terminal.h"
#include "graft/context.h"

namespace graft::cli {

/// How much a command says.
enum class Verbosity { quiet, normal, verbose };

/// Messages as lines; progress as "label  ███████░░░  512/1024  50 %  32.1 images/s  ETA 0:16
/// extra", redrawn in place and as wide as the terminal is; elsewhere plain lines, at most one in
/// five seconds.
/// Nothing is drawn for work that ends within a second on a pipe, nor in quiet mode.
class TerminalReporter : public Reporter {
 public:
  explicit TerminalReporter(Verbosity verbosity);
  void message(Severity severity, std::string_view text) override;
  void progress(const ProgressUpdate& update) override;

 private:
  using Clock = std::chrono::steady_clock;
  /// In so many columns, with a bar; 0: a plain line.
  [[nodiscard]] std::string line(const ProgressUpdate& update, int columns) const;
  void draw(const ProgressUpdate& update, const char* end);

  Verbosity verbosity_;
  bool terminal_;
  std::mutex mutex_;  // guards what follows
  std::string task_;  // the one under way; empty: none
  Clock::time_point start_;
  RateMeter meter_;
  Clock::time_point last_drawn_;
};

}  // namespace graft::cli
