#include "cli/live_view.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <optional>

#include "base/columns.h"
#include "base/diagnostics.h"
#include "base/progress.h"

namespace graft::cli {
namespace {

constexpr int kChartRows = 8;
constexpr int kLeastChartColumns = 60;  // of two charts; narrower ones say nothing
constexpr int kLeastChartRows = kChartRows + 6;
constexpr int kMostChartColumns = 62;
constexpr std::array<const char*, 2> kColours = {"\x1b[36m", "\x1b[33m"};  // cyan, yellow

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

  /// `dotted`: every third dot of a column.
  void line(double x0, double y0, double x1, double y1, int series, bool dotted) {
    constexpr int kDotEvery = 3;
    const int steps = std::max(1, static_cast<int>(std::max(std::abs(x1 - x0), std::abs(y1 - y0))));
    for (int i = 0; i <= steps; ++i) {
      const double t = static_cast<double>(i) / steps;
      const auto x = static_cast<int>(std::lround(x0 + (x1 - x0) * t));
      const auto y = static_cast<int>(std::lround(y0 + (y1 - y0) * t));
      const bool steep = std::abs(y1 - y0) > std::abs(x1 - x0);
      if (!dotted || (steep ? y : x) % kDotEvery == 0) dot(x, y, series);
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

std::vector<LinePart> epoch_parts(const EpochRecord& r) {
  return {{fmt::format("loss {:.4f}", r.loss), 3},
          {fmt::format("acc {:.4f}", r.accuracy), 2},
          {fmt::format("val_loss {:.4f}", r.val_loss), 4},
          {fmt::format("val_acc {:.4f}", r.val_accuracy), 8}};
}

/// A chart's title and what its lines are: above the chart where there is room for all of it, else
/// further left, else with short names.
std::string legend(const std::string& title, const std::vector<CurveSeries>& series, size_t columns,
                   size_t margin, bool coloured) {
  std::vector<std::string> names;
  size_t wide = 0;
  for (const bool brief : {false, true}) {
    names.clear();
    wide = columns_of(title);
    for (size_t k = 0; k < series.size(); ++k) {
      const std::string mark = series.size() < 2 ? "" : k == 0 ? " ⠂⠐" : " ⠒⠒";
      const std::string& name = brief ? series[k].brief : series[k].name;
      names.push_back(mark + " " + (name.empty() ? series[k].name : name));
      wide += columns_of(names.back());
    }
    if (wide <= columns) break;
  }
  size_t printed = std::min(margin, columns - std::min(columns, wide));
  std::string head = std::string(printed, ' ') + title;
  printed += columns_of(title);
  for (size_t k = 0; k < names.size(); ++k) {
    if (printed + columns_of(names[k]) > columns) break;  // in narrow charts titles say enough
    printed += columns_of(names[k]);
    head += coloured ? kColours.at(k % kColours.size()) + names[k] + "\x1b[0m" : names[k];
  }
  return head.append(columns - std::min(columns, printed), ' ');
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
      canvas.line(x(from), y(v[from]), x(i), y(v[i]), static_cast<int>(k),
                  k == 0 && series.size() > 1);
    }
  }
  std::vector<std::string> out;
  out.push_back(legend(title, series, static_cast<size_t>(columns), kLabel + 1, coloured));
  for (int r = 0; r < rows; ++r) {
    std::string label;
    if (r == 0) label = fmt::format("{:.3g}", high);
    if (r == rows - 1) label = fmt::format("{:.3g}", low);
    out.push_back(fmt::format("{:>{}} ", label, kLabel) + canvas.row(r, coloured));
  }
  return out;
}

LiveView::LiveView(Verbosity verbosity)
    : silent_(verbosity == Verbosity::quiet),
      terminal_(!silent_ && drawable_terminal().has_value()) {
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
  last_drawn_ = Clock::now();
  meter_.start(last_drawn_);
}

void LiveView::step(const EpochProgress& progress) {
  const auto now = Clock::now();
  if (progress.epoch != now_.epoch) meter_.start(now);
  now_ = progress;
  meter_.update(static_cast<size_t>(now_.done), now);
  if (silent_) return;
  const double since = std::chrono::duration<double>(now - last_drawn_).count();
  if (since < (terminal_ ? 0.15 : 5.0)) return;
  last_drawn_ = now;
  if (terminal_)
    draw(nullptr, false);
  else
    plain(status());
}

void LiveView::epoch(const EpochRecord& record, bool best) {
  history_.push_back(record);
  if (best) best_ = record;
  if (silent_) return;
  last_drawn_ = Clock::now();
  if (terminal_) {
    draw(&record, best);
    return;
  }
  std::vector<LinePart> parts = epoch_parts(record);
  parts.insert(parts.begin(), {{fmt::format("epoch {}/{}", record.epoch, epochs_), 1000},
                               {fmt::format("{} images", now_.images), 0},
                               {"in " + format_duration(record.seconds), 1}});
  plain(std::move(parts));
}

/// A line; on a terminal, which nothing can be drawn on then, no longer than it is wide.
void LiveView::plain(std::vector<LinePart> parts) {
  const size_t columns = terminal_columns(STDERR_FILENO).value_or(std::string::npos);
  print_diagnostic("{}\n", fitted_line(std::move(parts), columns));
}

std::vector<LinePart> LiveView::status() const {
  const double share =
      now_.images > 0 ? static_cast<double>(now_.done) / static_cast<double>(now_.images) : 0;
  const double rate = meter_.rate();
  return {{fmt::format("epoch {}/{}", now_.epoch, epochs_), 1000},
          {fmt::format("{}/{}", now_.done, now_.images), 5},
          {"images", 2, " "},
          {fmt::format("{:3.0f} %", share * 100), 9},
          {rate > 0 ? rate_text(rate) : "", 1},
          {rate > 0 && now_.done < now_.images
               ? "ETA " + format_duration(static_cast<double>(now_.images - now_.done) / rate)
               : "",
           7},
          {fmt::format("loss {:.4f}", now_.loss), 4},
          {fmt::format("acc {:.4f}", now_.accuracy), 3}};
}

std::string LiveView::epoch_line(const EpochRecord& record, bool best, size_t columns) const {
  std::vector<LinePart> parts = epoch_parts(record);
  parts.insert(parts.begin(), {fmt::format("epoch {}/{}", record.epoch, epochs_), 1000});
  parts.push_back({"in " + format_duration(record.seconds), 1});
  if (best) parts.push_back({"best", 5});
  return fitted_line(std::move(parts), columns);
}

std::vector<std::string> LiveView::charts(int columns) const {
  CurveSeries loss{{}, "training", "train"}, val_loss{{}, "validation", "val"};
  CurveSeries accuracy = loss, val_accuracy = val_loss;
  for (const EpochRecord& r : history_) {
    loss.values.push_back(r.loss);
    val_loss.values.push_back(r.val_loss);
    accuracy.values.push_back(r.accuracy);
    val_accuracy.values.push_back(r.val_accuracy);
  }
  const int width = std::min((columns - 3) / 2, kMostChartColumns);
  const auto left = braille_chart("loss", {loss, val_loss}, epochs_, width, kChartRows, coloured_);
  const auto right =
      braille_chart("accuracy", {accuracy, val_accuracy}, epochs_, width, kChartRows, coloured_);
  std::vector<std::string> out;
  for (size_t i = 0; i < left.size(); ++i) out.push_back(left[i] + "  " + right[i]);
  return out;
}

std::vector<std::string> LiveView::lines(TerminalSize size) const {
  // The last column stays free: a character there makes some terminals begin the next line.
  const auto columns = static_cast<size_t>(std::max(size.columns - 1, 1));
  std::vector<std::string> out;
  if (!history_.empty()) {
    if (size.columns >= kLeastChartColumns && size.rows >= kLeastChartRows)
      out = charts(size.columns - 1);
    double seconds = 0;
    for (const EpochRecord& r : history_) seconds += r.seconds;
    const double each = seconds / static_cast<double>(history_.size());
    const auto left = static_cast<double>(epochs_) - static_cast<double>(history_.size());
    out.push_back(fitted_line(
        {{best_.epoch > 0 ? fmt::format("best: epoch {}", best_.epoch) : "", 9},
         {best_.epoch > 0 ? fmt::format("validation accuracy {:.4f}", best_.val_accuracy) : "", 2,
          ", "},
         {left > 0 ? fmt::format("{} left at most", format_duration(left * each)) : "", 5, "   "}},
        columns));
  }
  if (now_.images > 0) {
    std::vector<LinePart> parts = status();
    const std::string epoch = parts.front().text;
    parts.erase(parts.begin());
    const double share = static_cast<double>(now_.done) / static_cast<double>(now_.images);
    out.push_back(bar_line(epoch, {share, 6}, parts, columns));
  }
  return out;
}

void LiveView::draw(const EpochRecord* kept, bool best) {
  const std::optional<TerminalSize> size = drawable_terminal();
  if (!size) {  // it went meanwhile: lines from here on
    terminal_ = false;
    plain(status());
    return;
  }
  std::string text;
  // Where the terminal has another width by now, what was drawn may have been broken into more
  // lines or not: it stays.
  if (drawn_ > 0 && drawn_columns_ == size->columns) text += fmt::format("\x1b[{}A\r", drawn_);
  text += "\x1b[?7l";  // no wrapping: what is too long after all is cut off
  if (kept != nullptr)
    text +=
        epoch_line(*kept, best, static_cast<size_t>(std::max(size->columns - 1, 1))) + "\x1b[K\n";
  const std::vector<std::string> now = lines(*size);
  for (const std::string& line : now) text += line + "\x1b[K\n";
  text += "\x1b[J\x1b[?7h";
  drawn_ = now.size();
  drawn_columns_ = size->columns;
  write_diagnostic(text);
}

}  // namespace graft::cli
