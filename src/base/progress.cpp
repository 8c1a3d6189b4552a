#include "base/progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <exception>
#include <utility>

namespace graft {

Progress::Progress(const RunContext& context, std::string task, size_t total, std::string unit)
    : reporter_(context.reporter), task_(std::move(task)), unit_(std::move(unit)), total_(total) {
  tell({}, false);  // the clock starts
}

Progress::~Progress() {
  if (ended_) return;
  try {
    tell({}, true);
  } catch (const std::exception&) {
    // The work has ended another way already.
  }
}

void Progress::tell(std::string_view extra, bool ended) const {
  if (reporter_ != nullptr) reporter_->progress({task_, unit_, done_, total_, extra, ended});
}

void Progress::update(size_t done, std::string_view extra) {
  done_ = done;
  tell(extra, false);
}

void Progress::finish(std::string_view extra) {
  if (ended_) return;
  ended_ = true;
  tell(extra, true);
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
