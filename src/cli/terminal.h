// The terminal that standard error is, and lines that fit into it.
#pragma once

#include <chrono>
#include <cstddef>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace graft::cli {

struct TerminalSize {
  int columns = 0;
  int rows = 0;
};

/// Of standard error as it is now; nothing where it cannot be drawn on: it is no terminal, or one
/// that TERM does not name or calls dumb.
std::optional<TerminalSize> drawable_terminal();

/// The width of the terminal that a stream is, also of one that nothing can be drawn on; nothing
/// where it is none.
std::optional<size_t> terminal_columns(int stream);

/// Lines for a stream: on a terminal broken between words, what goes on `hanging` columns in;
/// elsewhere as they are.
std::string for_stream(int stream, std::string_view text, size_t hanging = 0);

/// A table of names and figures for a stream: on a terminal that is narrower the names are cut, so
/// that each row stays a line. The last `figures` columns of characters are not touched.
std::string table_for_stream(int stream, std::string_view table, size_t figures);

/// A piece of a line. Where room is short those of the least weight go first.
struct LinePart {
  std::string text;
  int weight = 0;
  const char* before = "  ";
};

/// The parts in at most so many columns; of the last one that stays the middle is cut out.
std::string fitted_line(std::vector<LinePart> parts, size_t columns);

/// A bar among other parts: as wide as there is room for, from 5 to 24 columns.
struct Bar {
  double fraction = 0;
  int weight = 0;
};
/// The first part, cut where it takes more than half of the line, then the bar, then the others.
std::string bar_line(const std::string& task, const Bar& bar, const std::vector<LinePart>& parts,
                     size_t columns);

/// "███░░░": that fraction of so many characters.
std::string progress_bar(double fraction, int cells);

/// How fast work goes at present. What is there at once, as from a cache, does not count, and in
/// the first moments no rate says anything.
class RateMeter {
 public:
  using Clock = std::chrono::steady_clock;
  /// Nothing is done at `now`.
  void start(Clock::time_point now);
  void update(size_t done, Clock::time_point now);
  /// A second; 0: not known.
  [[nodiscard]] double rate() const;

 private:
  Clock::time_point start_;
  std::deque<std::pair<Clock::time_point, size_t>> marks_;  // of the last seconds
};

/// "32.1/s", "1,250/s".
std::string rate_text(double rate);

}  // namespace graft::cli
