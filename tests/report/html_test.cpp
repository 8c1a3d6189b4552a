#include "report/html.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <regex>
#include <set>

#include "report/chart.h"
#include "report/confusion.h"
#include "report/figures.h"
#include "report/photos.h"
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

TEST(Html, ShortenedByCharacters) {
  EXPECT_EQ(html::shortened("Gebäude", 7), "Gebäude");
  EXPECT_EQ(html::shortened("Gebäude", 4), "Gebä…");
  EXPECT_EQ(html::shortened("", 3), "");
  EXPECT_EQ(html::shortened_middle("abcdefghijk", 11), "abcdefghijk");
  EXPECT_EQ(html::shortened_middle("abcdefghijk", 10), "abcdef…ijk");
  EXPECT_EQ(html::shortened_middle("äöüäöüäöüß", 6), "äöü…üß");
}

TEST(Html, TablesScrollAndAreSortedWhereTheyAreToBe) {
  const std::string table = html::table(
      {"the <label>", {{"a<b", false}, {"n", true, true}}, {{{"x", "1"}, "data-k=\"2\""}}});
  EXPECT_NE(table.find("tabindex=\"0\" role=\"group\" aria-label=\"the &lt;label&gt;\""),
            std::string::npos);
  EXPECT_NE(table.find("<table class=\"sorts\">"), std::string::npos);
  EXPECT_NE(table.find("<th scope=\"col\">a&lt;b</th>"), std::string::npos);
  EXPECT_NE(table.find("data-first=\"descending\">n</th>"), std::string::npos);
  EXPECT_NE(table.find("<tr data-k=\"2\"><td>x</td><td class=\"number\">1</td></tr>"),
            std::string::npos);
}

TEST(Html, PathsAndAnswersAreText) {
  const std::string path = html::copyable_path("/data/<b>/\"1\".jpg");
  EXPECT_NE(path.find("data-path=\"/data/&lt;b&gt;/&quot;1&quot;.jpg\""), std::string::npos)
      << path;
  EXPECT_EQ(answer_in_words("sea", "street", 0.957), "sea, classified as street, 96 %");
  EXPECT_EQ(answer_caption("<i>", "<u>", 0.5, "/d/1.jpg", "/d").find("<i>"), std::string::npos);
  const std::string wrong = answer_caption("sea", "street", 0.957, "/d/1.jpg", "/d", 0.031);
  EXPECT_NE(wrong.find("95.7&nbsp;% (of the label 3.1&nbsp;%)"), std::string::npos) << wrong;
  const std::string right = answer_caption("sea", "sea", 0.578, "/d/1.jpg", "/d", 0.578);
  EXPECT_NE(right.find("correctly, 57.8&nbsp;%<br>"), std::string::npos) << right;
  EXPECT_EQ(path_below("/data/sea/1.jpg", "/data"), "sea/1.jpg");
  EXPECT_EQ(path_below("/other/1.jpg", "/data"), "/other/1.jpg");
}

Metrics of_pairs(size_t classes, const std::vector<std::pair<size_t, size_t>>& answers) {
  MetricsBuilder builder(classes);
  for (const auto& [truth, predicted] : answers) {
    std::vector<float> logits(classes, 0);
    logits[predicted] = 5;
    builder.add(logits, static_cast<int>(truth));
  }
  return builder.finish();
}

size_t count(const std::string& text, std::string_view what) {
  size_t out = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++out;
  return out;
}

TEST(Confusion, ATableOfNames) {
  const std::string table = confusion_table(of_pairs(2, {{0, 0}, {1, 0}, {1, 0}}), {"<a>", "b"});
  EXPECT_EQ(table.find("<a>"), std::string::npos);
  EXPECT_NE(table.find("<tr data-class=\"1\"><th scope=\"row\" data-class=\"1\" title=\"b\">"
                       "<span>b</span></th><td class=\"x9\">2</td><td></td></tr>"),
            std::string::npos)
      << table;
  EXPECT_NE(table.find("<td class=\"hit x9\">1</td>"), std::string::npos) << table;
}

TEST(Confusion, ClassesTakenForEachOtherStandSideBySide) {
  // 60 classes of which i and i + 30 are taken for each other, and 3 for 33 for 7.
  std::vector<std::pair<size_t, size_t>> answers;
  for (size_t i = 0; i < 60; ++i) {
    for (int k = 0; k < 5; ++k) answers.emplace_back(i, i);
    answers.emplace_back(i, (i + 30) % 60);
    answers.emplace_back(i, (i + 30) % 60);
  }
  answers.emplace_back(33, 7);
  const std::vector<size_t> order = confusion_order(of_pairs(60, answers), 60);
  ASSERT_EQ(order.size(), 60U);
  const auto at = [&](size_t c) {
    return std::find(order.begin(), order.end(), c) - order.begin();
  };
  for (size_t i = 0; i < 30; ++i) EXPECT_EQ(std::abs(at(i) - at(i + 30)), 1) << i;
  EXPECT_EQ(std::abs(at(33) - at(7)), 1);
}

TEST(Confusion, OfVeryManyClassesTheMostMistaken) {
  std::vector<std::pair<size_t, size_t>> answers;
  for (size_t i = 0; i < 300; ++i) answers.emplace_back(i, i);
  answers.emplace_back(299, 298);
  std::vector<std::string> names;
  for (size_t i = 0; i < 300; ++i) names.push_back("class " + std::to_string(i));
  const std::string table = confusion_table(of_pairs(300, answers), names);
  EXPECT_EQ(count(table, "<tr data-class="), 200U);
  EXPECT_NE(table.find("title=\"class 299\""), std::string::npos);
  EXPECT_NE(table.find("Of 300 classes the 200 with the most mistakes"), std::string::npos);
  EXPECT_LT(table.size(), 2'000'000U);
}

TEST(Confusion, TheMostFrequentMistakesFirst) {
  std::vector<std::pair<size_t, size_t>> answers = {{0, 1}, {0, 1}, {1, 0}};
  for (size_t c = 2; c < 40; ++c) answers.emplace_back(c, 0);
  std::vector<std::string> names;
  for (size_t i = 0; i < 40; ++i) names.push_back("c" + std::to_string(i));
  const std::string list = confusions_list(of_pairs(40, answers), names);
  EXPECT_NE(list.find("<tbody>\n<tr data-shows=\"0 1\"><td>c0</td><td>c1</td>"), std::string::npos);
  EXPECT_EQ(count(list, "data-shows"), 20U);
  EXPECT_NE(list.find("The first 20 of 40 kinds"), std::string::npos);
  EXPECT_EQ(confusions_list(of_pairs(2, {{0, 0}}), {"a", "b"}), "");
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

/// Numbers of an attribute of every <text> with that anchor, with its text.
std::vector<std::pair<double, std::string>> labels(const std::string& svg,
                                                   std::string_view anchor) {
  std::vector<std::pair<double, std::string>> out;
  const std::regex pattern("<text x=\"([0-9.]+)\" y=\"[0-9.]+\"( text-anchor=\"" +
                           std::string(anchor) + "\")>([^<]*)<");
  for (std::sregex_iterator at(svg.begin(), svg.end(), pattern), end; at != end; ++at)
    out.emplace_back(std::stod((*at)[1]), (*at)[3]);
  return out;
}

TEST(Chart, LabelsAreRoundAndWhole) {
  Chart chart{"T", "epoch", "rate", false, {{"", {{1, 0.000123}, {2, 0.00031}}}}, {}, {{1, 40}}};
  const std::string svg = chart_svg(chart);
  const auto rates = labels(svg, "end");
  ASSERT_GE(rates.size(), 3U) << svg;
  for (const auto& [x, text] : rates) {
    EXPECT_GE(x - 7.2 * static_cast<double>(text.size()), 20) << text << ": is cut off";
    const double steps = std::stod(text) / 0.00005;
    EXPECT_NEAR(steps, std::round(steps), 1e-6) << text;
  }
  std::set<std::string> epochs;
  for (const auto& [x, text] : labels(svg, "middle")) epochs.insert(text);
  EXPECT_TRUE(epochs.contains("10") && epochs.contains("40")) << svg;
  chart.x_range.reset();  // two epochs: none and a half
  for (const auto& [x, text] : labels(chart_svg(chart), "middle"))
    EXPECT_EQ(text.find('.'), std::string::npos) << text;
}

TEST(Chart, NamesStandBesideTheirLinesAndNotOverEachOther) {
  Chart chart{"T", "x", "y", false, {}, {}};
  for (int i = 0; i < 20; ++i)
    chart.series.push_back({"series " + std::to_string(i), {{1, 1}, {2, 1.001 * i}}});
  const std::string svg = chart_svg(chart);
  std::vector<double> at;
  const std::regex pattern("<text x=\"[0-9.]+\" y=\"([0-9.]+)\">series [0-9]+<");
  for (std::sregex_iterator it(svg.begin(), svg.end(), pattern), end; it != end; ++it)
    at.push_back(std::stod((*it)[1]));
  ASSERT_EQ(at.size(), 20U) << svg;
  std::sort(at.begin(), at.end());
  for (size_t i = 1; i < at.size(); ++i) EXPECT_GE(at[i] - at[i - 1], 16.9);
  EXPECT_GE(at.front(), 10);
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
