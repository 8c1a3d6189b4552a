#include "cli/terminal.h"

#include "base/columns.h"
#include "support.h"

namespace graft::cli {
namespace {

const std::vector<LinePart> kParts = {{"512/1024", 5}, {"images", 2, " "}, {" 50 %", 9},
                                      {"32.1/s", 1},   {"ETA 0:16", 7},    {"loss 0.5", 3}};

TEST(BarLine, FitsEveryWidthAndKeepsWhatMattersMost) {
  for (const std::string& task :
       {std::string("epoch 3/20"), std::string("computing features of validation images"),
        std::string("日本語の名前日本語の名前")})
    for (size_t columns = 1; columns < 160; ++columns) {
      const std::string line = bar_line(task, {0.5, 6}, kParts, columns);
      EXPECT_LE(columns_of(line), columns) << line;
      if (columns >= 40) {
        EXPECT_NE(line.find("50 %"), std::string::npos) << line;
        EXPECT_NE(line.find("ETA"), std::string::npos) << line;
        EXPECT_NE(line.find("██░░"), std::string::npos) << line;
      }
    }
  EXPECT_EQ(bar_line("epoch 3/20", {0.5, 6}, kParts, 79),
            "epoch 3/20  ███████░░░░░░░░  512/1024 images   50 %  32.1/s  ETA 0:16  loss 0.5");
}

TEST(BarLine, CutsNamesOnlyWhereThereIsNoRoom) {
  const std::vector<LinePart> parts = {
      {"60/60", 5}, {"images", 2, " "}, {"100 %", 9}, {"in 0:02", 7}};
  const std::string name = "features, train, view 1 of 2";
  EXPECT_TRUE(bar_line(name, {1, 6}, parts, 79).starts_with(name + "  █"));
  EXPECT_TRUE(bar_line("features of images, train, view 1 of 12", {1, 6}, parts, 79)
                  .starts_with("features of images, train, view 1 of 12  █"));
}

TEST(FittedLine, LeavesOutTheLeastFirst) {
  EXPECT_EQ(fitted_line({{"a", 3}, {"bb", 1}, {"", 9}, {"ccc", 2}}, 80), "a  bb  ccc");
  EXPECT_EQ(fitted_line({{"a", 3}, {"bb", 1}, {"ccc", 2}}, 9), "a  ccc");
  EXPECT_EQ(fitted_line({{"mountain", 3}, {"bb", 1}}, 5), "mo…in");
}

TEST(RateMeter, SaysNothingTooEarlyNorOfACache) {
  using namespace std::chrono_literals;
  const RateMeter::Clock::time_point start;
  RateMeter meter;
  meter.start(start);
  meter.update(64'000, start + 10ms);  // all of it lay in a cache
  EXPECT_EQ(meter.rate(), 0);
  meter.update(64'010, start + 500ms);
  EXPECT_EQ(meter.rate(), 0) << "half a second is too short";
  meter.update(64'020, start + 1010ms);
  EXPECT_NEAR(meter.rate(), 20, 1);
  for (int second = 2; second < 60; ++second)
    meter.update(64'000 + 100U * static_cast<size_t>(second), start + second * 1s);
  EXPECT_NEAR(meter.rate(), 100, 1) << "of the last seconds";
  meter.start(start + 100s);
  EXPECT_EQ(meter.rate(), 0);
}

TEST(RateText, HasNoMoreDigitsThanMean) {
  EXPECT_EQ(rate_text(32.14), "32.1/s");
  EXPECT_EQ(rate_text(1249.6), "1,250/s");
}

}  // namespace
}  // namespace graft::cli
