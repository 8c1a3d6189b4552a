#include "cli/terminal.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>

#include "base/columns.h"
#include "base/progress.h"

namespace graft::cli {
namespace {

constexpr int kLeastCells = 5;
constexpr int kMostCells = 24;

size_t columns_of(const std::vector<LinePart>& parts) {
  size_t columns = 0;
  for (size_t i = 0; i < parts.size(); ++i)
    columns += graft::columns_of(parts[i].text) + (i > 0 ? graft::columns_of(parts[i].before) : 0);
  return columns;
}

/// Leaves out parts until the others fit.
void fit(std::vector<LinePart>& parts, size_t columns) {
  std::erase_if(parts, [](const LinePart& part) { return part.text.empty(); });
  while (parts.size() > 1 && columns_of(parts) > columns)
    parts.erase(std::min_element(parts.begin(), parts.end(),
                                 [](const auto& a, const auto& b) { return a.weight < b.weight; }));
  if (parts.size() == 1) parts[0].text = cut_to_columns(parts[0].text, columns);
}

std::string joined(const std::vector<LinePart>& parts) {
  std::string line;
  for (size_t i = 0; i < parts.size(); ++i) line += (i > 0 ? parts[i].before : "") + parts[i].text;
  return line;
}

}  // namespace

std::optional<TerminalSize> drawable_terminal() {
  constexpr TerminalSize kUsual{80, 24};
  const char* term = std::getenv("TERM");
  if (::isatty(STDERR_FILENO) != 1 || term == nullptr || *term == '\0' ||
      std::string_view(term) == "dumb")
    return std::nullopt;
  winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return kUsual;
  return TerminalSize{size.ws_col, size.ws_row};
}

std::optional<size_t> terminal_columns(int stream) {
  constexpr size_t kUsual = 80;
  if (::isatty(stream) != 1) return std::nullopt;
  winsize size{};
  if (::ioctl(stream, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return kUsual;
  return size.ws_col;
}

std::string for_stream(int stream, std::string_view text, size_t hanging) {
  const std::optional<size_t> columns = terminal_columns(stream);
  return columns ? wrapped(text, *columns, hanging) : std::string(text);
}

std::string table_for_stream(int stream, std::string_view table, size_t figures) {
  const std::optional<size_t> columns = terminal_columns(stream);
  if (!columns || *columns <= figures) return std::string(table);
  std::string out;
  while (!table.empty()) {
    const size_t end = std::min(table.find('\n'), table.size());
    const std::string_view line = table.substr(0, end);
    table.remove_prefix(std::min(end + 1, table.size()));
    // Figures are ASCII: a column is a byte.
    if (graft::columns_of(line) > *columns && line.size() > figures) {
      const std::string_view name = line.substr(0, line.size() - figures);
      out += in_columns(name.substr(0, name.find_last_not_of(' ') + 1), *columns - figures) +
             std::string(line.substr(line.size() - figures));
    } else {
      out += line;
    }
    out += '\n';
  }
  return out;
}

std::string fitted_line(std::vector<LinePart> parts, size_t columns) {
  fit(parts, columns);
  return joined(parts);
}

std::string bar_line(const std::string& task, const Bar& bar, const std::vector<LinePart>& parts,
                     size_t columns) {
  // Marks the bar's place among the parts that stay.
  const std::string least(kLeastCells, '#');
  std::vector<LinePart> line;
  // The name may have what those leave that say more than the bar, or nearly as much.
  size_t others = columns_of({{}, {least, 0}});
  for (const LinePart& part : parts)
    if (!part.text.empty() && part.weight + 1 >= bar.weight) others += columns_of({{}, part});
  const size_t room_for_name = std::max(columns - std::min(columns, others), columns / 2);
  for (const size_t longest : {room_for_name, columns * 2 / 5}) {
    line = {{cut_to_columns(task, longest), 1000}, {least, bar.weight}};
    line.insert(line.end(), parts.begin(), parts.end());
    fit(line, columns);
    if (line.size() < 2 || line[1].text != least) continue;  // a shorter name may leave it room
    const auto room = static_cast<int>(columns - columns_of(line));
    line[1].text = progress_bar(bar.fraction, std::min(kMostCells, kLeastCells + room));
    break;
  }
  return joined(line);
}

std::string progress_bar(double fraction, int cells) {
  const int full = std::clamp(static_cast<int>(fraction * cells), 0, cells);
  std::string text;
  for (int i = 0; i < cells; ++i) text += i < full ? "█" : "░";
  return text;
}

void RateMeter::start(Clock::time_point now) {
  start_ = now;
  marks_ = {{now, 0}};
}

void RateMeter::update(size_t done, Clock::time_point now) {
  constexpr std::chrono::milliseconds kBeginning{300};
  constexpr std::chrono::seconds kWindow{15};
  if (now - start_ <= kBeginning) {
    marks_ = {{now, done}};
    return;
  }
  while (marks_.size() > 2 && now - marks_[1].first > kWindow) marks_.pop_front();
  // A few marks a second are enough; the last one is always the newest.
  constexpr std::chrono::milliseconds kBetween{100};
  if (marks_.size() > 1 && marks_.back().first - marks_[marks_.size() - 2].first < kBetween)
    marks_.back() = {now, done};
  else
    marks_.emplace_back(now, done);
}

double RateMeter::rate() const {
  constexpr double kLeastSeconds = 0.7;
  if (marks_.size() < 2 || marks_.back().second <= marks_.front().second) return 0;
  const double seconds =
      std::chrono::duration<double>(marks_.back().first - marks_.front().first).count();
  if (seconds < kLeastSeconds) return 0;
  return static_cast<double>(marks_.back().second - marks_.front().second) / seconds;
}

std::string rate_text(double rate) {
  return rate < 100 ? fmt::format("{:.1f}/s", rate)
                    : format_count(static_cast<unsigned long long>(rate + 0.5)) + "/s";
}

}  // namespace graft::cli
