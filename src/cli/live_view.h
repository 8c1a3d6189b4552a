// Training on a terminal: bar, curves, best epoch and time left, redrawn in place.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "cli/terminal_reporter.h"
#include "graft/train.h"

namespace graft::cli {

/// Curves as lines of text, each character holding 2 × 4 dots (Unicode's braille patterns). Every
/// series is a row of y values at x = 1, 2, …, `last`; the first series is drawn in `colours[0]`
/// and so on where `coloured`. Columns and rows count characters, the y axis's labels included.
struct CurveSeries {
  std::vector<double> values;
  std::string name;
};
std::vector<std::string> braille_chart(const std::string& title,
                                       const std::vector<CurveSeries>& series, int last,
                                       int columns, int rows, bool coloured);

/// Draws on standard error. Where that is no terminal, or too small a one, epochs are plain lines.
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

  /// What a terminal of that width shows now, from the curves to the bar.
  [[nodiscard]] std::vector<std::string> lines(int columns) const;

 private:
  using Clock = std::chrono::steady_clock;
  void draw();
  [[nodiscard]] std::string status() const;
  void plain(const std::string& text);

  bool silent_;
  bool terminal_;
  bool coloured_;
  std::vector<EpochRecord> history_;
  EpochRecord best_;  // as the training loop said
  int epochs_ = 0;
  EpochProgress now_;
  size_t drawn_ = 0;  // lines on the screen
  Clock::time_point epoch_start_;
  Clock::time_point last_drawn_;
};

}  // namespace graft::cli
