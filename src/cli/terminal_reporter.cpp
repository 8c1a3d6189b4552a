#include "cli/terminal_reporter.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "base/diagnostics.h"
#include "base/progress.h"
#include "cli/option_flags.h"

namespace graft::cli {
namespace {

double seconds_between(std::chrono::steady_clock::time_point from,
                       std::chrono::steady_clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

}  // namespace

TerminalReporter::TerminalReporter(Verbosity verbosity)
    : verbosity_(verbosity), terminal_(drawable_terminal().has_value()) {}

void TerminalReporter::message(Severity severity, std::string_view text) {
  const bool shown = severity == Severity::warning ||
                     (severity == Severity::detail ? verbosity_ == Verbosity::verbose
                                                   : verbosity_ != Verbosity::quiet);
  if (!shown) return;
  const bool plain = severity == Severity::info || severity == Severity::detail;
  const std::lock_guard lock(mutex_);
  if (terminal_ && !task_.empty()) write_diagnostic("\r\x1b[K");  // it is drawn again
  print_diagnostic("{}\n", for_stream(STDERR_FILENO, (plain ? "" : "graft: ") + with_flags(text)));
}

std::string TerminalReporter::line(const ProgressUpdate& u, int columns) const {
  const double elapsed = seconds_between(start_, Clock::now());
  const auto done = static_cast<double>(u.done);
  const auto total = static_cast<double>(u.total);
  const double rate = meter_.rate();
  const double fraction = u.total > 0 ? done / total : 1.0;
  const bool bytes = u.unit == "B";
  std::vector<LinePart> parts = {
      {bytes ? fmt::format("{}/{}", format_bytes(done), format_bytes(total))
             : fmt::format("{}/{}", u.done, u.total),
       5},
      {bytes ? "" : std::string(u.unit), 2, " "},
      {fmt::format("{:3.0f} %", fraction * 100), 9},
      {rate <= 0 ? ""
       : bytes   ? format_bytes(rate) + "/s"
                 : rate_text(rate),
       1},
      {u.ended || u.done >= u.total ? "in " + format_duration(elapsed)
       : rate > 0                   ? "ETA " + format_duration((total - done) / rate)
                                    : "",
       7},
      {without_controls(std::string(u.extra)), 3}};
  if (columns > 0)
    return bar_line(without_controls(std::string(u.task)), {fraction, 6}, parts,
                    static_cast<size_t>(columns));
  parts.insert(parts.begin(), {std::string(u.task), 1000});
  return fitted_line(std::move(parts), terminal_columns(STDERR_FILENO).value_or(std::string::npos));
}

void TerminalReporter::draw(const ProgressUpdate& update, const char* end) {
  const std::optional<TerminalSize> size = drawable_terminal();
  // The last column stays free: a character there makes some terminals begin the next line.
  const int columns = size ? std::max(size->columns - 1, 1) : 79;
  write_diagnostic(fmt::format("\r{}\x1b[K{}", line(update, columns), end));
}

void TerminalReporter::progress(const ProgressUpdate& update) {
  if (verbosity_ == Verbosity::quiet) return;
  const std::lock_guard lock(mutex_);
  const auto now = Clock::now();
  if (task_ != update.task) {
    task_ = update.task;
    start_ = last_drawn_ = now;
    meter_.start(now);
  }
  meter_.update(update.done, now);
  if (update.ended) {
    if (update.done == 0 && update.total > 0) {  // nothing came of it
      if (terminal_) write_diagnostic("\r\x1b[K");
    } else if (terminal_)
      draw(update, "\n");
    else if (!update.extra.empty() || seconds_between(start_, now) > 1.0)
      print_diagnostic("{}\n", line(update, 0));
    task_.clear();
    return;
  }
  if (seconds_between(last_drawn_, now) < (terminal_ ? 0.1 : 5.0)) return;
  if (!terminal_ && update.done >= update.total) return;  // the end says the same
  last_drawn_ = now;
  if (terminal_)
    draw(update, "");
  else
    print_diagnostic("{}\n", line(update, 0));
}

}  // namespace graft::cli
