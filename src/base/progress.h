// A progress display for anything that takes over two seconds, on standard error.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>

namespace graft {

/// How much a command says.
enum class Verbosity { quiet, normal, verbose };

/// Draws "label  ███████░░░  512/1024  50 %  32.1 images/s  ETA 0:16  extra". On a terminal the
/// line is redrawn in place; elsewhere plain lines appear, at most one in five seconds. Nothing is
/// drawn for work that ends within a second on a pipe, nor in quiet mode. Not thread-safe.
class Progress {
 public:
  Progress(std::string label, size_t total, std::string unit, Verbosity verbosity);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// Work done so far out of `total`; `extra` is free text such as the running loss.
  void update(size_t done, std::string_view extra = {});
  /// Ends the display, leaving one summary line with the time taken.
  void finish(std::string_view extra = {});

 private:
  using Clock = std::chrono::steady_clock;
  [[nodiscard]] std::string line(std::string_view extra, bool bar) const;

  std::string label_;
  std::string unit_;
  size_t total_;
  size_t done_ = 0;
  bool terminal_;
  bool silent_;
  bool finished_ = false;
  Clock::time_point start_;
  Clock::time_point last_drawn_;
};

/// "███░░░": that fraction of so many characters.
std::string progress_bar(double fraction, int cells);
/// "0:07", "12:34", "1:02:03".
std::string format_duration(double seconds);
/// "512 B", "3.2 MB", "1.7 GB" (powers of 1000).
std::string format_bytes(double bytes);
/// "121,877,654".
std::string format_count(unsigned long long value);

}  // namespace graft
