#include "report/html.h"

#include <limits>

#include "report/chart.h"
#include "report/figures.h"
#include "support.h"

namespace graft {
namespace {

TEST(Html, Escape) {
  EXPECT_EQ(html::escape("<a href=\"x\">'&"), "&lt;a href=&quot;x&quot;&gt;&#39;&amp;");
  EXPECT_EQ(html::escape("Gebäude 山 🌊"), "Gebäude 山 🌊");
  EXPECT_EQ(html::escape("a\x01\x1b[31mb"), "a  [31mb");
  // Not UTF-8: alone, cut off, over-long, beyond Unicode.
  EXPECT_EQ(html::escape("a\xFF"), "a\xEF\xBF\xBD");
  EXPECT_EQ(html::escape("a\xE5\xB1"), "a\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(html::escape("\xC0\xAF"), "\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(html::escape("\xF5\x80\x80\x80").substr(0, 3), "\xEF\xBF\xBD");
}

TEST(Html, Base64) {
  const auto encode = [](std::string_view text) {
    return html::base64({reinterpret_cast<const std::byte*>(text.data()), text.size()});
  };
  EXPECT_EQ(encode(""), "");  // RFC 4648, section 10
  EXPECT_EQ(encode("f"), "Zg==");
  EXPECT_EQ(encode("fo"), "Zm8=");
  EXPECT_EQ(encode("foobar"), "Zm9vYmFy");
}

TEST(Html, ThumbnailsAreNoLargerThanAsked) {
  const Image wide{400, 10, std::vector<uint8_t>(size_t{400} * 10 * 3, 90)};
  const std::string img = html::thumbnail(wide, 100, "a \"wide\" one");
  EXPECT_NE(img.find("width=\"100\" height=\"2\""), std::string::npos) << img;
  EXPECT_NE(img.find("alt=\"a &quot;wide&quot; one\""), std::string::npos);
  const Image small{10, 400, std::vector<uint8_t>(size_t{400} * 10 * 3, 90)};
  EXPECT_NE(html::thumbnail(small, 1000, "").find("width=\"10\" height=\"400\""),
            std::string::npos);
}

TEST(Figures, ConfusionMatrix) {
  MetricsBuilder builder(2);
  builder.add(std::vector<float>{1, 0}, 0);
  builder.add(std::vector<float>{1, 0}, 1);
  const std::string svg = confusion_svg(builder.finish(), {"<a>", "b"});
  EXPECT_EQ(svg.find("<a>"), std::string::npos);
  EXPECT_NE(svg.find("b taken for &lt;a&gt;: 1 (100.0 %)"), std::string::npos);
}

TEST(Figures, ConfusionOfManyClasses) {
  constexpr size_t kClasses = 200;
  MetricsBuilder builder(kClasses);
  std::vector<float> logits(kClasses, 0);
  logits[7] = 5;
  builder.add(logits, 7);
  builder.add(logits, 9);
  const Metrics m = builder.finish();
  const Image image = confusion_image(m, 2);
  EXPECT_EQ(image.width, 400);
  EXPECT_EQ(image.pixels[(size_t{14} * 400 + 14) * 3], 8) << "all of class 7 were right";
  EXPECT_EQ(image.pixels[(size_t{14} * 400 + 16) * 3], 248);
}

TEST(Chart, ValuesThatAreNotFiniteOrHardlyDiffer) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double inf = std::numeric_limits<double>::infinity();
  using Points = std::vector<std::pair<double, double>>;
  for (const Points& points : {Points{{1, 1e16}, {2, 1e16 + 2}}, Points{{1, 1e300}, {2, 1e300}},
                               Points{{1, 2}, {2, nan}, {3, inf}, {4, 1}}, Points{{1, nan}}}) {
    const std::string svg = chart_svg({"T", "x", "y", false, {{"only", points}}, {}});
    const std::string drawn =
        svg.substr(svg.find("</desc>"));  // before it the values stand in words
    for (const char* word : {"nan", "inf"}) EXPECT_EQ(drawn.find(word), std::string::npos) << svg;
  }
}

TEST(Chart, OnePointAndMarks) {
  Chart chart{"T", "x", "y", false, {{"only", {{1, 0.5}}}}, {{1, "best"}}};
  const std::string svg = chart_svg(chart);
  EXPECT_NE(svg.find("<circle"), std::string::npos);
  EXPECT_NE(svg.find("best"), std::string::npos);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
}

}  // namespace
}  // namespace graft
