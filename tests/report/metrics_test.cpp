#include "report/metrics.h"

#include <cmath>

#include "support.h"

namespace graft {
namespace {

TEST(Metrics, WorkedOutByHand) {
  MetricsBuilder builder(3);
  const std::vector<std::pair<std::vector<float>, int>> rows = {
      {{2, 0, 0}, 0}, {{0, 2, 0}, 0}, {{0, 2, 0}, 1}, {{0, 0, 3}, 2}, {{1, 1, 0}, 1}};
  for (const auto& [logits, label] : rows) builder.add(logits, label);
  const Metrics m = builder.finish();
  EXPECT_EQ(m.images, 5);
  // The last row's tie goes to class 0.
  EXPECT_DOUBLE_EQ(m.top1, 3.0 / 5);
  EXPECT_EQ(m.confusion, (std::vector<std::vector<int64_t>>{{1, 1, 0}, {1, 1, 0}, {0, 0, 1}}));
  EXPECT_DOUBLE_EQ(m.per_class[0].precision, 0.5);
  EXPECT_DOUBLE_EQ(m.per_class[0].recall, 0.5);
  EXPECT_DOUBLE_EQ(m.per_class[2].f1, 1);
  EXPECT_EQ(m.per_class[1].support, 2);
  const double e2 = std::exp(2.0);
  const double e3 = std::exp(3.0);
  const double right = -std::log(e2 / (e2 + 2));
  const double wrong = -std::log(1 / (e2 + 2));
  const double tie = -std::log(std::exp(1.0) / (2 * std::exp(1.0) + 1));
  EXPECT_NEAR(m.loss, (2 * right + wrong - std::log(e3 / (e3 + 2)) + tie) / 5, 1e-6);
  // Bins: three rows at e2/(e2+2) with two right, one at e3/(e3+2) right, one tie wrong.
  const double c2 = e2 / (e2 + 2);
  const double c3 = e3 / (e3 + 2);
  const double ct = std::exp(1.0) / (2 * std::exp(1.0) + 1);
  EXPECT_NEAR(m.ece, (std::abs(3 * c2 - 2) + std::abs(c3 - 1) + ct) / 5, 1e-6);
}

TEST(Metrics, ClassesWithoutPicturesOrPredictions) {
  MetricsBuilder builder(7);
  builder.add(std::vector<float>{0, 9, 1, 2, 3, 4, 5}, 6);
  builder.add(std::vector<float>{0, 9, 1, 2, 3, 4, 5}, 0);
  const Metrics m = builder.finish();
  EXPECT_DOUBLE_EQ(m.top1, 0);
  EXPECT_DOUBLE_EQ(m.top5, 0.5);
  EXPECT_DOUBLE_EQ(m.per_class[3].f1, 0);
  const nlohmann::json json = metrics_json(m, {"a", "b", "c", "d", "e", "f", "g"});
  EXPECT_TRUE(json.contains("top5"));
  EXPECT_EQ(json["per_class"][6]["support"], 1);
  const nlohmann::json few = metrics_json(MetricsBuilder(3).finish(), {"a", "b", "c"});
  EXPECT_FALSE(few.contains("top5"));
}

TEST(Metrics, HugeLogits) {
  MetricsBuilder builder(2);
  builder.add(std::vector<float>{1e30F, -1e30F}, 0);
  EXPECT_DOUBLE_EQ(builder.finish().loss, 0);
}

}  // namespace
}  // namespace graft
