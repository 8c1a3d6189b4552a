#include "cli/live_view.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <optional>

#include "base/diagnostics.h"
#include "base/progress.h"

namespace graft::cli {
namespace {

constexpr int kChartRows = 8;
constexpr int kLeastColumns = 60;
constexpr int kLeastRows = kChartRows + 6;
constexpr int kMostChartColumns = 62;
constexpr std::array<const char*, 2> kColours = {"\x1b[36m", "\x1b[33m"};  // cyan, yellow

struct TerminalSize {
  int columns = 0;
  int rows = 0;
};

/// Of standard error, or nothing where it is no terminal that can be drawn on.
std::optional<TerminalSize> terminal_size() {
  const char* term = std::getenv("TERM");
  if (::isatty(STDERR_FILENO) != 1 || term == nullptr || std::string_view(term) == "dumb")
    return std::nullopt;
  winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0) return std::nullopt;
  if (size.ws_col < kLeastColumns || size.ws_row < kLeastRows) return std::nullopt;
  return TerminalSize{size.ws_col, size.ws_row};
}

std::string utf8(char32_t c) {  // three bytes: enough for braille
  return {static_cast<char>(0xE0U | c >> 12U), static_cast<char>(0x80U | (c >> 6U & 0x3FU)),
          static_cast<char>(0x80U | (c & 0x3FU))};
}

/// Dots on a grid of 2 × 4 to a character, with the series that drew last in each character.
class Canvas {
 public:
  Canvas(int columns, int rows) : columns_(columns), rows_(rows), cells_(columns * rows) {}

  [[nodiscard]] int width() const { return columns_ * 2; }
  [[nodiscard]] int height() const { return rows_ * 4; }

  void dot(int x, int y, int series) {
    if (x < 0 || x >= width() || y < 0 || y >= height()) return;
    // Bits of U+2800: columns of three, then the fourth row.
    constexpr std::array<std::array<unsigned, 2>, 4> kBits = {
        {{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}}};
    Cell& cell = cells_[(y / 4) * columns_ + x / 2];
    cell.bits |= kBits.at(y % 4).at(x % 2);
    cell.series = series;
  }

  void line(double x0, double y0, double x1, double y1, int series) {
    const int steps = std::max(1, static_cast<int>(std::max(std::abs(x1 - x0), std::abs(y1 - y0))));
    for (int i = 0; i <= steps; ++i) {
      const double t = static_cast<double>(i) / steps;
      dot(static_cast<int>(std::lround(x0 + (x1 - x0) * t)),
          static_cast<int>(std::lround(y0 + (y1 - y0) * t)), series);
    }
  }

  [[nodiscard]] std::string row(int y, bool coloured) const {
    std::string out;
    for (int x = 0; x < columns_; ++x) {
      const Cell& cell = cells_[y * columns_ + x];
      if (cell.bits == 0) {
        out += ' ';
        continue;
      }
      if (coloured) out += kColours.at(static_cast<size_t>(cell.series) % kColours.size());
      out += utf8(0x2800 + cell.bits);
      if (coloured) out += "\x1b[0m";
    }
    return out;
  }

 private:
  struct Cell {
    unsigned bits = 0;
    int series = 0;
  };
  int columns_;
  int rows_;
  std::vector<Cell> cells_;
};

std::string epoch_text(const EpochRecord& r) {
  return fmt::format("loss {:.4f}  acc {:.4f}  val_loss {:.4f}  val_acc {:.4f}", r.loss, r.accuracy,
                     r.val_loss, r.val_accuracy);
}

}  // namespace

std::vector<std::string> braille_chart(const std::string& title,
                                       const std::vector<CurveSeries>& series, int last,
                                       int columns, int rows, bool coloured) {
  constexpr int kLabel = 7;
  Canvas canvas(columns - kLabel - 1, rows);
  double low = std::numeric_limits<double>::infinity();
  double high = -low;
  for (const CurveSeries& s : series)
    for (const double v : s.values)
      if (std::isfinite(v)) {
        low = std::min(low, v);
        high = std::max(high, v);
      }
  if (!(low <= high)) low = 0, high = 1;
  const double least = 1e-9 * std::max(1.0, std::abs(high));  // less would drown in rounding
  if (high - low < least) low -= std::max(0.5, least), high += std::max(0.5, least);
  const auto x = [&](size_t i) {
    return last > 1 ? static_cast<double>(i) / (last - 1) * (canvas.width() - 1) : 0.0;
  };
  const auto y = [&](double v) { return (high - v) / (high - low) * (canvas.height() - 1); };
  for (size_t k = 0; k < series.size(); ++k) {
    const std::vector<double>& v = series[k].values;
    for (size_t i = 0; i < v.size(); ++i) {
      if (!std::isfinite(v[i])) continue;
      const size_t from = i > 0 && std::isfinite(v[i - 1]) ? i - 1 : i;
      canvas.line(x(from), y(v[from]), x(i), y(v[i]), static_cast<int>(k));
    }
  }
  std::vector<std::string> out;
  std::string head = fmt::format("{:>{}} ", "", kLabel) + title;
  size_t printed = kLabel + 1 + title.size();
  for (size_t k = 0; k < series.size(); ++k) {
    const std::string name = "  " + series[k].name;
    head += coloured ? kColours.at(k % kColours.size()) + name + "\x1b[0m" : name;
    printed += name.size();
  }
  head.append(printed < static_cast<size_t>(columns) ? columns - printed : 0, ' ');
  out.push_back(head);
  for (int r = 0; r < rows; ++r) {
    std::string label;
    if (r == 0) label = fmt::format("{:.3g}", high);
    if (r == rows - 1) label = fmt::format("{:.3g}", low);
    out.push_back(fmt::format("{:>{}} ", label, kLabel) + canvas.row(r, coloured));
  }
  return out;
}

LiveView::LiveView(Verbosity verbosity)
    : silent_(verbosity == Verbosity::quiet), terminal_(!silent_ && terminal_size().has_value()) {
  const char* no_color = std::getenv("NO_COLOR");  // https://no-color.org
  coloured_ = no_color == nullptr || *no_color == '\0';
}

LiveView::~LiveView() = default;

void LiveView::past_epoch(const EpochRecord& record, bool best) {
  history_.push_back(record);
  if (best) best_ = record;
}

void LiveView::begin(int epochs) {
  epochs_ = epochs;
  now_ = {};
  drawn_ = 0;  // whatever was printed in between stays
  last_drawn_ = epoch_start_ = Clock::now();
}

void LiveView::step(const EpochProgress& progress) {
  if (progress.epoch != now_.epoch) epoch_start_ = Clock::now();
  now_ = progress;
  if (silent_) return;
  const double since = std::chrono::duration<double>(Clock::now() - last_drawn_).count();
  if (since < (terminal_ ? 0.15 : 5.0)) return;
  last_drawn_ = Clock::now();
  if (terminal_)
    draw();
  else
    plain(status());
}

void LiveView::epoch(const EpochRecord& record, bool best) {
  history_.push_back(record);
  if (best) best_ = record;
  if (silent_) return;
  last_drawn_ = Clock::now();
  if (terminal_) {
    draw();
    return;
  }
  plain(fmt::format("epoch {}/{}  {} images  in {}  {}", record.epoch, epochs_, now_.images,
                    format_duration(record.seconds), epoch_text(record)));
}

void LiveView::plain(const std::string& text) { print_diagnostic("{}\n", text); }

std::string LiveView::status() const {
  const double elapsed = std::chrono::duration<double>(Clock::now() - epoch_start_).count();
  const double share =
      now_.images > 0 ? static_cast<double>(now_.done) / static_cast<double>(now_.images) : 0;
  // In the first moments a rate says nothing.
  constexpr double kLeastTime = 0.05;
  const double rate = elapsed > kLeastTime ? static_cast<double>(now_.done) / elapsed : 0;
  std::string text = fmt::format("epoch {}/{}  {}/{} images  {:3.0f} %", now_.epoch, epochs_,
                                 now_.done, now_.images, share * 100);
  if (rate > 0) text += fmt::format("  {:.1f}/s", rate);
  if (rate > 0 && now_.done < now_.images)
    text += "  ETA " + format_duration(static_cast<double>(now_.images - now_.done) / rate);
  return text + fmt::format("  loss {:.4f}  acc {:.4f}", now_.loss, now_.accuracy);
}

std::vector<std::string> LiveView::lines(int columns) const {
  std::vector<std::string> out;
  if (!history_.empty()) {
    CurveSeries loss{{}, "training"}, val_loss{{}, "validation"};
    CurveSeries accuracy{{}, "training"}, val_accuracy{{}, "validation"};
    double seconds = 0;
    for (const EpochRecord& r : history_) {
      loss.values.push_back(r.loss);
      val_loss.values.push_back(r.val_loss);
      accuracy.values.push_back(r.accuracy);
      val_accuracy.values.push_back(r.val_accuracy);
      seconds += r.seconds;
    }
    const int width = std::min((columns - 3) / 2, kMostChartColumns);
    const auto left =
        braille_chart("loss", {loss, val_loss}, epochs_, width, kChartRows, coloured_);
    const auto right =
        braille_chart("accuracy", {accuracy, val_accuracy}, epochs_, width, kChartRows, coloured_);
    for (size_t i = 0; i < left.size(); ++i) out.push_back(left[i] + "  " + right[i]);
    const double each = seconds / static_cast<double>(history_.size());
    std::string text =
        fmt::format("epoch {}: {}", history_.back().epoch, epoch_text(history_.back()));
    out.push_back(text);
    text = best_.epoch > 0 ? fmt::format("best: epoch {}, validation accuracy {:.4f}", best_.epoch,
                                         best_.val_accuracy)
                           : "";
    const auto left_over = static_cast<double>(epochs_) - static_cast<double>(history_.size());
    if (left_over > 0) text += fmt::format("   {} left at most", format_duration(left_over * each));
    out.push_back(text);
  }
  if (now_.images > 0) {
    const double share = static_cast<double>(now_.done) / static_cast<double>(now_.images);
    const int cells = std::clamp(columns - 100, 8, 30);
    out.push_back(progress_bar(share, cells) + "  " + status());
  }
  return out;
}

void LiveView::draw() {
  const std::optional<TerminalSize> size = terminal_size();
  if (!size) {  // made too small meanwhile: lines from here on
    terminal_ = false;
    plain(status());
    return;
  }
  std::string text;
  if (drawn_ > 0) text += fmt::format("\x1b[{}A\r", drawn_);
  const std::vector<std::string> now = lines(size->columns);
  text += "\x1b[?7l";  // no wrapping: a line that is too long is cut off
  for (const std::string& line : now) text += line + "\x1b[K\n";
  text += "\x1b[?7h";
  drawn_ = now.size();
  write_diagnostic(text);
}

}  // namespace graft::cli
