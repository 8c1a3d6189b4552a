#include "report/compare.h"

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

PredictionRow row(const char* path, const char* label, const char* predicted, const char* split) {
  return {path, label, predicted, 0.9, split};
}

TEST(Compare, OnlyImagesInCommonCount) {
  std::vector<ComparedRun> runs(2);
  runs[0].predictions = {row("1", "a", "a", "test"), row("2", "a", "b", "test"),
                         row("3", "b", "b", "test"), row("4", "b", "b", "val"),
                         row("5", "a", "a", "test")};
  runs[1].predictions = {row("1", "a", "b", "test"), row("2", "a", "a", "test"),
                         row("3", "b", "b", "test"), row("4", "b", "a", "val"),
                         row("5", "b", "b", "test")};  // relabelled meanwhile
  std::vector<PairComparison> pairs = compare_pairs(runs);
  ASSERT_EQ(pairs.size(), 1U);
  EXPECT_EQ(pairs[0].split, "test");
  EXPECT_EQ(pairs[0].images, 3);
  EXPECT_EQ(pairs[0].both, 1);
  EXPECT_EQ(pairs[0].only_a, 1);
  EXPECT_EQ(pairs[0].only_b, 1);
  // Without test images in one of them: validation.
  runs[1].predictions = {row("4", "b", "a", "val")};
  pairs = compare_pairs(runs);
  EXPECT_EQ(pairs[0].split, "val");
  EXPECT_EQ(pairs[0].images, 1);
  EXPECT_EQ(pairs[0].only_a, 1);
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

}  // namespace
}  // namespace graft
