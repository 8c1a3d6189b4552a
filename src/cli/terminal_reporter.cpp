#include "cli/terminal_reporter.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>

#include "base/diagnostics.h"
#include "base/progress.h"
#include "cli/option_flags.h"

namespace graft::cli {
namespace {

constexpr int kBarCells = 24;

/// Of the terminal that standard error is.
int columns() {
  constexpr int kUsual = 80;
  winsize size{};
  return ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : kUsual;
}

double seconds_between(std::chrono::steady_clock::time_point from,
                       std::chrono::steady_clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

}  // namespace

TerminalReporter::TerminalReporter(Verbosity verbosity)
    : verbosity_(verbosity), terminal_(::isatty(STDERR_FILENO) == 1) {}

void TerminalReporter::message(Severity severity, std::string_view text) {
  const bool shown = severity == Severity::warning ||
                     (severity == Severity::detail ? verbosity_ == Verbosity::verbose
                                                   : verbosity_ != Verbosity::quiet);
  if (!shown) return;
  const bool plain = severity == Severity::info || severity == Severity::detail;
  const std::lock_guard lock(mutex_);
  if (terminal_ && !task_.empty()) write_diagnostic("\r\x1b[K");  // it is drawn again
  print_diagnostic("{}{}\n", plain ? "" : "graft: ", with_flags(text));
}

std::string TerminalReporter::line(const ProgressUpdate& u, bool bar) const {
  const double elapsed = seconds_between(start_, Clock::now());
  const auto done = static_cast<double>(u.done);
  const auto total = static_cast<double>(u.total);
  // In the first moments a rate says nothing.
  constexpr double kLeastTime = 0.05;
  const double rate = elapsed > kLeastTime ? done / elapsed : 0;
  const double fraction = u.total > 0 ? done / total : 1.0;
  const bool bytes = u.unit == "B";
  std::string text = bytes ? fmt::format("{}/{}", format_bytes(done), format_bytes(total))
                           : fmt::format("{}/{} {}", u.done, u.total, u.unit);
  text += fmt::format("  {:3.0f} %", fraction * 100);
  if (rate > 0)
    text += bytes ? fmt::format("  {}/s", format_bytes(rate)) : fmt::format("  {:.1f}/s", rate);
  if (rate > 0 && u.done < u.total)
    text += "  ETA " + format_duration((total - done) / rate);
  else
    text += "  in " + format_duration(elapsed);
  if (!u.extra.empty()) text += fmt::format("  {}", u.extra);
  if (!bar) return fmt::format("{}  {}", u.task, text);
  // Within the terminal's width, or each update would leave a line behind: first the bar gives way,
  // then the task's name.
  const int room = columns() - 1 - static_cast<int>(text.size()) - 4;
  std::string task(u.task);
  const int cells = std::clamp(room - static_cast<int>(task.size()), 0, kBarCells);
  if (cells == 0 && static_cast<int>(task.size()) > room) {
    task.resize(static_cast<size_t>(std::max(room - 1, 0)));
    task += "…";
  }
  return task + "  " + (cells > 0 ? progress_bar(fraction, cells) + "  " : "") + text;
}

void TerminalReporter::progress(const ProgressUpdate& update) {
  if (verbosity_ == Verbosity::quiet) return;
  const std::lock_guard lock(mutex_);
  const auto now = Clock::now();
  if (task_ != update.task) {
    task_ = update.task;
    start_ = last_drawn_ = now;
  }
  if (update.ended) {
    if (update.done == 0 && update.total > 0) {  // nothing came of it
      if (terminal_) write_diagnostic("\r\x1b[K");
    } else if (terminal_)
      write_diagnostic(fmt::format("\r{}\x1b[K\n", without_controls(line(update, true))));
    else if (!update.extra.empty() || seconds_between(start_, now) > 1.0)
      print_diagnostic("{}\n", line(update, false));
    task_.clear();
    return;
  }
  if (seconds_between(last_drawn_, now) < (terminal_ ? 0.1 : 5.0)) return;
  last_drawn_ = now;
  if (terminal_)
    write_diagnostic(fmt::format("\r{}\x1b[K", without_controls(line(update, true))));
  else
    print_diagnostic("{}\n", line(update, false));
}

std::string progress_bar(double fraction, int cells) {
  const int full = std::clamp(static_cast<int>(fraction * cells), 0, cells);
  std::string text;
  for (int i = 0; i < cells; ++i) text += i < full ? "█" : "░";
  return text;
}

}  // namespace graft::cli
