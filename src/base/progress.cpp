#include "base/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "base/diagnostics.h"

namespace graft {
namespace {

constexpr int kBarCells = 24;

double seconds_between(std::chrono::steady_clock::time_point from,
                       std::chrono::steady_clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

}  // namespace

Progress::Progress(std::string label, size_t total, std::string unit, Verbosity verbosity)
    : label_(std::move(label)),
      unit_(std::move(unit)),
      total_(total),
      terminal_(::isatty(STDERR_FILENO) == 1),
      silent_(verbosity == Verbosity::quiet),
      start_(Clock::now()),
      last_drawn_(start_) {}

Progress::~Progress() {
  // Leave the terminal on a fresh line when an exception ends the work.
  if (!finished_ && !silent_ && terminal_ && done_ > 0) write_diagnostic("\n");
}

std::string Progress::line(std::string_view extra, bool bar) const {
  const double elapsed = seconds_between(start_, Clock::now());
  const double rate = elapsed > 0 ? static_cast<double>(done_) / elapsed : 0;
  const double fraction =
      total_ > 0 ? static_cast<double>(done_) / static_cast<double>(total_) : 1.0;
  std::string text = label_ + "  ";
  if (bar) text += progress_bar(fraction, kBarCells) + "  ";
  const bool bytes = unit_ == "B";
  text += bytes ? fmt::format("{}/{}", format_bytes(static_cast<double>(done_)),
                              format_bytes(static_cast<double>(total_)))
                : fmt::format("{}/{} {}", done_, total_, unit_);
  text += fmt::format("  {:3.0f} %", fraction * 100);
  text += bytes ? fmt::format("  {}/s", format_bytes(rate)) : fmt::format("  {:.1f}/s", rate);
  if (rate > 0 && done_ < total_)
    text += "  ETA " + format_duration(static_cast<double>(total_ - done_) / rate);
  else
    text += "  in " + format_duration(elapsed);
  if (!extra.empty()) text += fmt::format("  {}", extra);
  return text;
}

void Progress::update(size_t done, std::string_view extra) {
  done_ = done;
  if (silent_) return;
  const auto now = Clock::now();
  const double since = seconds_between(last_drawn_, now);
  if (since < (terminal_ ? 0.1 : 5.0)) return;
  last_drawn_ = now;
  if (terminal_)
    write_diagnostic(fmt::format("\r{}\x1b[K", without_controls(line(extra, true))));
  else
    print_diagnostic("{}\n", line(extra, false));
}

void Progress::finish(std::string_view extra) {
  if (finished_) return;
  finished_ = true;
  if (silent_) return;
  if (terminal_)
    write_diagnostic(fmt::format("\r{}\x1b[K\n", without_controls(line(extra, true))));
  else if (!extra.empty() || seconds_between(start_, Clock::now()) > 1.0)
    print_diagnostic("{}\n", line(extra, false));
}

std::string progress_bar(double fraction, int cells) {
  const int full = std::clamp(static_cast<int>(fraction * cells), 0, cells);
  std::string text;
  for (int i = 0; i < cells; ++i) text += i < full ? "█" : "░";
  return text;
}

std::string format_duration(double seconds) {
  const auto total = static_cast<long>(std::llround(std::max(seconds, 0.0)));
  if (total >= 3600)
    return fmt::format("{}:{:02}:{:02}", total / 3600, total / 60 % 60, total % 60);
  return fmt::format("{}:{:02}", total / 60, total % 60);
}

std::string format_bytes(double bytes) {
  constexpr std::array<const char*, 5> kUnits = {"B", "kB", "MB", "GB", "TB"};
  size_t unit = 0;
  while (bytes >= 1000 && unit + 1 < kUnits.size()) {
    bytes /= 1000;
    ++unit;
  }
  return unit == 0 ? fmt::format("{:.0f} B", bytes)
                   : fmt::format("{:.1f} {}", bytes, kUnits.at(unit));
}

std::string format_count(unsigned long long value) {
  std::string digits = std::to_string(value);
  for (int at = static_cast<int>(digits.size()) - 3; at > 0; at -= 3)
    digits.insert(static_cast<size_t>(at), ",");
  return digits;
}

}  // namespace graft
