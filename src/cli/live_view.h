// Training on a terminal: bar, curves, best epoch and time left, redrawn in place.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "cli/terminal.h"
#include "cli/terminal_reporter.h"
#include "graft/train.h"

namespace graft::cli {

/// Curves as lines of text, each character holding 2 × 4 dots (Unicode's braille patterns). Every
/// series is a row of y values at x = 1, 2, …, `last`; of several the first is dotted and the
/// others are solid, and where `coloured` each has its colour too. Columns and rows count
/// characters, the y axis's labels included.
struct CurveSeries {
  std::vector<double> values;
  std::string name;
  std::string brief{};  ///< the name where there is little room; empty: none
};
std::vector<std::string> braille_chart(const std::string& title,
                                       const std::vector<CurveSeries>& series, int last,
                                       int columns, int rows, bool coloured);

/// Draws on standard error: a line that stays for each epoch, and below them, redrawn, the curves
/// where there is room for them, the best epoch and the bar. Where nothing can be drawn, plain
/// lines.
class LiveView : public TrainObserver {
 public:
  explicit LiveView(Verbosity verbosity);
  ~LiveView() override;
  LiveView(const LiveView&) = delete;
  LiveView& operator=(const LiveView&) = delete;

  void past_epoch(const EpochRecord& record, bool best) override;
  void begin(int epochs) override;
  void step(const EpochProgress& progress) override;
  void epoch(const EpochRecord& record, bool best) override;

  /// What a terminal of that size shows now, from the curves to the bar.
  [[nodiscard]] std::vector<std::string> lines(TerminalSize size) const;
  /// The line that stays of an epoch, in so many columns.
  [[nodiscard]] std::string epoch_line(const EpochRecord& record, bool best, size_t columns) const;

 private:
  using Clock = std::chrono::steady_clock;
  /// `kept`: an epoch that ended, whose line stays; null: none did.
  void draw(const EpochRecord* kept, bool best);
  [[nodiscard]] std::vector<LinePart> status() const;
  [[nodiscard]] std::vector<std::string> charts(int columns) const;
  void plain(std::vector<LinePart> parts);

  bool silent_;
  bool terminal_;
  bool coloured_;
  std::vector<EpochRecord> history_;
  EpochRecord best_;  // as the training loop said
  int epochs_ = 0;
  EpochProgress now_;
  size_t drawn_ = 0;  // lines on the screen, in a terminal of that width
  int drawn_columns_ = 0;
  RateMeter meter_;  // of this epoch
  Clock::time_point last_drawn_;
};

}  // namespace graft::cli
