#include "report/live_view.h"

#include "support.h"

namespace graft {
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
  for (const std::vector<double>& values :
       {std::vector<double>{}, {1}, {1, 1, 1}, {nan, 2, nan, 5}, {1e9, -1e9}, {nan}}) {
    for (const std::string& line : braille_chart("loss", {{values, "a"}}, 9, 40, 5, false))
      EXPECT_LE(characters(line), 40U) << line;
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
}  // namespace graft
