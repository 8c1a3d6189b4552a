#include "report/compare.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/columns.h"
#include "report/compare_rows.h"

#include "support.h"

namespace graft {
namespace {

TEST(Compare, McNemarsExactTest) {
  // scipy.stats.binomtest(min, n, 0.5).pvalue
  EXPECT_DOUBLE_EQ(mcnemar(0, 0), 1);
  EXPECT_NEAR(mcnemar(1, 2), 1, 1e-12);
  EXPECT_NEAR(mcnemar(0, 5), 0.0625, 1e-12);
  EXPECT_NEAR(mcnemar(3, 12), 0.03515625, 1e-12);
  EXPECT_NEAR(mcnemar(12, 3), 0.03515625, 1e-12);
  EXPECT_NEAR(mcnemar(100, 140), 0.01166409231767769, 1e-12);
  EXPECT_DOUBLE_EQ(mcnemar(7, 7), 1);
}

using Answers = std::map<std::string, PredictionRow>;

PredictionRow row(const char* path, const char* label, const char* predicted, const char* split) {
  return {path, label, predicted, 0.9, split};
}

Answers answers(const std::vector<PredictionRow>& rows) {
  Answers out;
  for (const PredictionRow& r : rows) out.emplace(r.path, r);
  return out;
}

TEST(Compare, OnlyImagesInCommonCount) {
  std::vector<ComparedRun> runs(2);
  runs[0].held_back =
      answers({row("1", "a", "a", "test"), row("2", "a", "b", "test"), row("3", "b", "b", "test"),
               row("4", "b", "b", "val"), row("5", "a", "a", "test"), row("6", "a", "b", "test")});
  runs[1].held_back =
      answers({row("1", "a", "b", "test"), row("2", "a", "a", "test"), row("3", "b", "b", "test"),
               row("4", "b", "a", "val"), row("5", "b", "b", "test"),  // relabelled meanwhile
               row("6", "a", "a", "test")});
  runs[0].trained = {"6"};
  std::vector<PairComparison> pairs = compare_pairs(runs);
  ASSERT_EQ(pairs.size(), 1U);
  EXPECT_EQ(pairs[0].split, "test");
  EXPECT_EQ(pairs[0].images, 3);
  EXPECT_EQ(pairs[0].both, 1);
  EXPECT_EQ(pairs[0].only_a, 1);
  EXPECT_EQ(pairs[0].only_b, 1);
  ASSERT_EQ(pairs[0].flips.size(), 2U);
  EXPECT_EQ(pairs[0].flips[0].a->path, "1");
  ASSERT_EQ(pairs[0].classes.size(), 2U);
  EXPECT_EQ(pairs[0].classes[0].images, 2);
  // Without test images in one of them: all that neither was trained on.
  runs[1].held_back = answers({row("4", "b", "a", "val"), row("1", "a", "a", "unseen")});
  pairs = compare_pairs(runs);
  EXPECT_EQ(pairs[0].split, "unseen");
  EXPECT_EQ(pairs[0].images, 2);
  EXPECT_EQ(pairs[0].only_a, 1);
  EXPECT_EQ(pairs[0].both, 1);
}

TEST(Compare, DifferencesHaveAnInterval) {
  std::vector<ComparedRun> runs(2);
  runs[0].name = "one";
  runs[1].name = "two";
  const auto fill = [&](int only_a, int only_b, int both, int neither) {
    int i = 0;
    const auto add = [&](int count, bool right_a, bool right_b) {
      for (int k = 0; k < count; ++k, ++i) {
        const std::string key = std::to_string(i);
        runs[0].held_back[key] = row(key.c_str(), "x", right_a ? "x" : "y", "test");
        runs[1].held_back[key] = row(key.c_str(), "x", right_b ? "x" : "y", "test");
      }
    };
    for (ComparedRun& run : runs) run.held_back.clear();
    add(only_a, true, false);
    add(only_b, false, true);
    add(both, true, true);
    add(neither, false, false);
    return compare_pairs(runs)[0];
  };
  // Agresti and Min's adjusted interval of 53 pairs, in NumPy:
  // b, c, n = 16.5, 2.5, 55; d = (b - c) / n; d ± 1.959964 sqrt(b + c - (b - c)²/n) / n
  PairComparison pair = fill(2, 16, 26, 9);
  EXPECT_NEAR(pair.difference, 14.0 / 53, 1e-12);
  EXPECT_NEAR(pair.low, 0.11454, 1e-5);
  EXPECT_NEAR(pair.high, 0.39456, 1e-5);
  EXPECT_TRUE(verdict(runs, pair).starts_with("two is better than one: 26.4 points"))
      << verdict(runs, pair);
  pair = fill(16, 2, 26, 9);
  EXPECT_TRUE(verdict(runs, pair)
                  .starts_with("one is better than two: 26.4 points, 95 % between 11.5 and 39.5"))
      << verdict(runs, pair);
  pair = fill(3, 4, 100, 10);
  EXPECT_NE(verdict(runs, pair).find("do not differ beyond chance: two leads by"),
            std::string::npos);
}

TEST(Compare, OnlyOptionsThatDifferAreShown) {
  std::vector<ComparedRun> runs(2);
  runs[0].name = "one";
  runs[1].name = "two";
  runs[0].run.config = "lr = 0.001\nhead = 'gap'\nseed = 1\n";
  runs[1].run.config = "lr = 0.01\nhead = 'gap'\nema = 0.9\nseed = 1\n";
  EXPECT_EQ(option_differences(runs),
            (std::vector<std::vector<std::string>>{
                {"option", "one", "two"}, {"ema", "–", "0.9"}, {"lr", "0.001", "0.01"}}));
}

TEST(Compare, HeadersStandOverTheirColumns) {
  std::vector<ComparedRun> runs(2);
  runs[0].name = "runs/one";
  runs[1].name = "runs/two";
  for (ComparedRun& run : runs) run.run.metrics = nlohmann::json::object();
  const std::vector<PairComparison> pairs = {{0, 1, "test", 24, 3, 1, 20, 0.625}};
  std::string text = compare_text(runs, pairs);
  EXPECT_NE(text.find("a         b         images   both right  only a  only b  p (McNemar)\n"
                      "runs/one  runs/two  24 test          20       3       1       0.6250\n"),
            std::string::npos)
      << text;
  // In 80 columns whatever the names.
  runs[1].name = "runs/of/another/name/that/is/long";
  text = compare_text(runs, pairs);
  EXPECT_NE(text.find("a  runs/one\n"
                      "b  runs/of/another/name/that/is/long\n"
                      "   images   both right  only a  only b  p (McNemar)\n"
                      "   24 test          20       3       1       0.6250\n"),
            std::string::npos)
      << text;
}

TEST(Compare, RunsFitALineWithoutColumnsThatSayNothing) {
  std::vector<ComparedRun> runs(3);
  for (size_t i = 0; i < 3; ++i) {
    runs[i].name = fmt::format("runs/20261127-1015{}0-a-name", i);
    runs[i].run.config = "backbone = 'vgg-mini'\nfine-tune = 0\n";
    runs[i].run.metrics = {{"best_epoch", 12}, {"validation", {{"top1", 0.91}, {"loss", 0.31}}}};
  }
  std::string text = compare_text(runs, {{0, 1}, {0, 2}, {1, 2}});
  EXPECT_EQ(text.find("test top-1"), std::string::npos) << "none was tested\n" << text;
  EXPECT_NE(text.find("val top-1"), std::string::npos) << text;
  EXPECT_NE(text.find("--html FILE.html shows them"), std::string::npos) << text;
  for (ComparedRun& run : runs)
    run.run.metrics["test"] = {{"top1", 0.9}, {"loss", 0.3}, {"ece", 0.02}};
  text = compare_text(runs, {});
  EXPECT_NE(text.find("test ECE"), std::string::npos) << text;
  // In blocks, each of which says whose figures they are.
  size_t rows = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string line = text.substr(at, end - at);
    EXPECT_LE(columns_of(line), 80U) << line;
    rows += line.starts_with("runs/20261127-101500-a-name") ? 1 : 0;
    at = end + 1;
  }
  EXPECT_EQ(rows, 2U) << text;
}

TEST(Compare, ThePageCallsRunsByTheirNames) {
  std::vector<ComparedRun> runs(2);
  runs[0].name = "runs/one/";
  runs[1].name = "runs/<two>";
  for (ComparedRun& run : runs) run.run.metrics = nlohmann::json::object();
  const PredictionRow right{"/d/sea/1.jpg", "sea", "sea", 0.54, {}};
  const PredictionRow wrong{"/d/sea/1.jpg", "sea", "sky", 0.97, {}};
  PairComparison pair{0, 1, "test", 24, 1, 0, 20, 0.625};
  pair.flips = {{&right, &wrong}};
  const std::string page = compare_page(runs, {pair});
  EXPECT_NE(page.find("<h3>one and &lt;two&gt;</h3>"), std::string::npos);
  EXPECT_NE(page.find("1 right in one alone"), std::string::npos);
  EXPECT_NE(page.find("one: <b>sea</b> 54&nbsp;%"), std::string::npos);
  EXPECT_NE(page.find("&lt;two&gt;: <b>sky</b> 97&nbsp;%"), std::string::npos);
  EXPECT_NE(page.find(">sea/1.jpg</code>"), std::string::npos) << "with the folder, its class";
}

}  // namespace
}  // namespace graft
