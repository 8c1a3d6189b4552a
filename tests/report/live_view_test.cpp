#include "cli/live_view.h"

#include <limits>

#include "support.h"

namespace graft::cli {
namespace {

size_t characters(const std::string& text) {
  size_t count = 0;
  for (const char c : text) count += (static_cast<unsigned char>(c) & 0xC0U) != 0x80 ? 1 : 0;
  return count;
}

TEST(BrailleChart, ARisingLine) {
  // 10 columns: 7 and a space for labels, two characters of 2 × 4 dots each. One row: 4 dots high.
  const std::vector<std::string> lines = braille_chart("t", {{{0, 1, 2, 3}, "s"}}, 4, 10, 1, false);
  ASSERT_EQ(lines.size(), 2U);
  // Dots (0,3), (1,2), (2,1), (3,0): bits 7 and 6 of the first, 2 and 4 of the second character.
  EXPECT_EQ(lines[1].substr(8), "⡠⠊");
}

TEST(BrailleChart, WidthHoldsWhateverTheValues) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const std::vector<double>& values : {std::vector<double>{},
                                            {1},
                                            {1, 1, 1},
                                            {nan, 2, nan, 5},
                                            {1e9, -1e9},
                                            {nan},
                                            {1e17, 1e17}}) {
    for (const std::string& line : braille_chart("loss", {{values, "a"}}, 9, 40, 5, false))
      EXPECT_LE(characters(line), 40U) << line;
  }
}

TEST(BrailleChart, BothCurvesAreNamedWhereverThereIsRoom) {
  const std::vector<CurveSeries> two = {{{1, 2}, "training", "train"},
                                        {{2, 1}, "validation", "val"}};
  const auto head = [&](int columns) {
    return braille_chart("accuracy", two, 2, columns, 4, false).front();
  };
  EXPECT_EQ(head(50), "        accuracy ⠂⠐ training ⠒⠒ validation        ");
  EXPECT_EQ(head(38), "    accuracy ⠂⠐ training ⠒⠒ validation") << "each of two on 80 columns";
  EXPECT_EQ(head(28), "    accuracy ⠂⠐ train ⠒⠒ val") << "on 60";
}

TEST(LiveView, TheBestEpochIsTheOneItWasTold) {
  const auto record = [](int epoch, double val_loss) {
    EpochRecord r;
    r.epoch = epoch;
    r.val_accuracy = 0.5;
    r.val_loss = val_loss;
    return r;
  };
  const auto best_line = [](const LiveView& view) {
    for (const std::string& line : view.lines({80, 24}))
      if (line.starts_with("best")) return line;
    return std::string();
  };
  LiveView view(Verbosity::quiet);
  view.past_epoch(record(1, 3), false);
  EXPECT_EQ(best_line(view), "") << "none was named";
  view.past_epoch(record(2, 1), true);
  view.past_epoch(record(3, 2), false);
  view.begin(6);
  EXPECT_TRUE(best_line(view).starts_with("best: epoch 2,")) << best_line(view);
  view.epoch(record(4, 0.5), true);
  EXPECT_TRUE(best_line(view).starts_with("best: epoch 4,")) << best_line(view);
}

TEST(BestEpoch, AccuracyThenLossAndNeverWhatIsNotFinite) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double inf = std::numeric_limits<double>::infinity();
  const auto better = [](double accuracy, double loss, double than_accuracy, double than_loss) {
    EpochRecord a, b;
    a.val_accuracy = accuracy;
    a.val_loss = loss;
    b.val_accuracy = than_accuracy;
    b.val_loss = than_loss;
    return better_epoch(a, b);
  };
  EXPECT_TRUE(better(0.6, 9, 0.5, 1));
  EXPECT_FALSE(better(0.5, 1, 0.6, 9));
  EXPECT_TRUE(better(0.5, 1, 0.5, 2));
  EXPECT_FALSE(better(0.5, 2, 0.5, 2)) << "of equals the earlier";
  for (const double bad : {nan, inf, -inf}) {
    EXPECT_FALSE(better(0.5, bad, 0.5, 2));
    EXPECT_FALSE(better(0.9, bad, 0.5, 2));
    EXPECT_FALSE(better(bad, 1, 0.5, 2));
    EXPECT_TRUE(better(0.1, 9, 0.9, bad));
    EXPECT_FALSE(better(0.9, bad, 0.9, bad));
  }
}

TEST(BrailleChart, ColoursOnlyWhereAsked) {
  const std::vector<CurveSeries> two = {{{1, 2}, "a"}, {{2, 1}, "b"}};
  std::string plain, coloured;
  for (const std::string& line : braille_chart("t", two, 2, 30, 4, false)) plain += line;
  for (const std::string& line : braille_chart("t", two, 2, 30, 4, true)) coloured += line;
  EXPECT_EQ(plain.find('\x1b'), std::string::npos);
  EXPECT_NE(coloured.find("\x1b[36m"), std::string::npos);
  EXPECT_NE(coloured.find("\x1b[33m"), std::string::npos);
}

}  // namespace
}  // namespace graft::cli
