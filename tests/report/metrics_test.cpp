#include "report/metrics.h"
#include "run/calibrate.h"

#include <cmath>
#include <limits>

#include "graft/classifier.h"
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

TEST(Metrics, ClassesWithoutImagesOrPredictions) {
  MetricsBuilder builder(7);
  builder.add(std::vector<float>{0, 9, 1, 2, 3, 4, 5}, 6);
  builder.add(std::vector<float>{0, 9, 1, 2, 3, 4, 5}, 0);
  const Metrics m = builder.finish();
  EXPECT_DOUBLE_EQ(m.top1, 0);
  EXPECT_DOUBLE_EQ(m.top5, 0.5);
  EXPECT_DOUBLE_EQ(m.per_class[3].f1, 0);
  const nlohmann::json json = metrics_document(m, {"a", "b", "c", "d", "e", "f", "g"});
  EXPECT_TRUE(json.contains("top5"));
  EXPECT_EQ(json["per_class"][6]["support"], 1);
  const nlohmann::json few = metrics_document(MetricsBuilder(3).finish(), {"a", "b", "c"});
  EXPECT_FALSE(few.contains("top5"));
}

TEST(Metrics, AreaUnderTheCurve) {
  // Probabilities of class 0 rise with its logit; classes 0 and 1 stand 3:1 in order, one tie.
  MetricsBuilder builder(3);
  builder.add(std::vector<float>{3, 0, 0}, 0);
  builder.add(std::vector<float>{1, 0, 0}, 0);
  builder.add(std::vector<float>{1, 0, 0}, 1);
  builder.add(std::vector<float>{2, 0, 0}, 1);
  const Metrics m = builder.finish();
  // Pairs: (3,1) (3,2) right, (1,1) tied, (1,2) wrong.
  EXPECT_DOUBLE_EQ(m.per_class[0].auc.value(), 2.5 / 4);
  EXPECT_FALSE(m.per_class[2].auc.has_value()) << "no image of class 2";
  EXPECT_DOUBLE_EQ(m.macro.auc.value(), (*m.per_class[0].auc + *m.per_class[1].auc) / 2);
  const nlohmann::json json = metrics_document(m, {"a", "b", "c"});
  EXPECT_TRUE(json["per_class"][2]["auc"].is_null());
}

TEST(Metrics, AveragesAndIntervals) {
  MetricsBuilder builder(2);
  for (int i = 0; i < 300; ++i)
    builder.add(std::vector<float>{i % 4 == 0 ? 1.0F : -1.0F, 0}, i % 3 == 0 ? 0 : 1);
  const Metrics m = builder.finish();
  EXPECT_DOUBLE_EQ(m.macro.recall, (m.per_class[0].recall + m.per_class[1].recall) / 2);
  EXPECT_DOUBLE_EQ(m.weighted.recall,
                   (100 * m.per_class[0].recall + 200 * m.per_class[1].recall) / 300);
  EXPECT_NEAR(m.weighted.recall, m.top1, 1e-12);
  // Of 300 images the interval is about 2 · 1.96 · sqrt(p (1 - p) / n) wide.
  const double width = m.top1_interval.high - m.top1_interval.low;
  EXPECT_NEAR(width, 2 * 1.96 * std::sqrt(m.top1 * (1 - m.top1) / 300), 0.02);
  EXPECT_LT(m.macro_f1_interval.low, m.macro.f1);
  EXPECT_GT(m.macro_f1_interval.high, m.macro.f1);
}

// As scikit-learn's f1_score(average="macro") has them: a class that these images do not have and
// that none is taken for says nothing.
TEST(Metrics, MacroAverageIsOfTheClassesThatOccur) {
  MetricsBuilder builder(4);
  for (const int label : {0, 0, 0, 1}) builder.add(std::vector<float>{1, 0, 0, 0}, label);
  builder.add(std::vector<float>{0, 1, 0, 0}, 1);
  builder.add(std::vector<float>{0, 0, 1, 0}, 1);  // class 2 has no image, class 3 nothing at all
  const Metrics m = builder.finish();
  const double first = 6.0 / 7;  // F1 of 3 right, 4 predicted, 3 images
  const double second = 0.5;     // of 1, 1, 3
  EXPECT_DOUBLE_EQ(m.macro.f1, (first + second + 0) / 3);
  EXPECT_DOUBLE_EQ(m.macro.recall, (1 + 1.0 / 3 + 0) / 3);
  EXPECT_EQ(m.macro.support, 6);
  EXPECT_LT(m.macro_f1_interval.low, m.macro.f1);
  EXPECT_GT(m.macro_f1_interval.high, m.macro.f1);

  MetricsBuilder right(4);
  for (int i = 0; i < 6; ++i) right.add(std::vector<float>{1, 0, 0, 0}, 0);
  EXPECT_EQ(right.finish().macro.f1, 1);
}

// No resample differs where all are right: that is not certainty.
TEST(Metrics, IntervalsOfAllAndOfNone) {
  const auto of = [](int images, int label) {
    MetricsBuilder builder(2);
    for (int i = 0; i < images; ++i) builder.add(std::vector<float>{1, 0}, label);
    return builder.finish();
  };
  // Wilson's, as R's prop.test(correct = FALSE) has them.
  EXPECT_NEAR(of(1, 0).top1_interval.low, 0.2065, 1e-4);
  EXPECT_NEAR(of(6, 0).top1_interval.low, 0.6097, 1e-4);
  EXPECT_EQ(of(6, 0).top1_interval.high, 1);
  EXPECT_EQ(of(6, 1).top1_interval.low, 0);
  EXPECT_NEAR(of(6, 1).top1_interval.high, 0.3903, 1e-4);
  EXPECT_NEAR(of(6, 0).macro_f1_interval.low, of(6, 0).macro.f1 * 0.6097, 1e-4);
  EXPECT_EQ(of(6, 0).macro_f1_interval.high, of(6, 0).macro.f1);
}

constexpr size_t kFour = 4;

/// Logits that are `times` too large: labels are drawn from their softmax before.
std::pair<std::vector<float>, std::vector<int>> sharpened(float times) {
  std::vector<float> logits;
  std::vector<int> labels;
  uint64_t state = 1;
  const auto uniform = [&] {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return static_cast<double>(state >> 11U) * 0x1.0p-53;
  };
  for (int i = 0; i < 20000; ++i) {
    std::vector<float> row;
    for (size_t c = 0; c < kFour; ++c) row.push_back(static_cast<float>(uniform() * 4));
    const std::vector<double> p = softmax(row);
    double rest = uniform();
    int label = 0;
    while (label + 1 < static_cast<int>(kFour) && rest >= p[label]) rest -= p[label++];
    labels.push_back(label);
    for (const float v : row) logits.push_back(times * v);
  }
  return {logits, labels};
}

TEST(Metrics, TemperatureIsFound) {
  for (const float times : {2.0F, 34.0F, 200.0F, 0.01F}) {
    const auto [logits, labels] = sharpened(times);
    const Calibration found = fit_temperature(logits, labels, kFour);
    EXPECT_NEAR(found.temperature / times, 1, 0.03) << times;
    EXPECT_FALSE(found.at_bound) << times;
  }
  // A handful of images, all right, do not make a model certain of everything.
  const std::vector<float> few = {3, 0, 0, 3};
  EXPECT_GT(fit_temperature(few, std::vector<int>{0, 1}, 2).temperature, 0.5);
  EXPECT_DOUBLE_EQ(std::round(fit_temperature({}, {}, 2).temperature * 1e6), 1e6);
}

TEST(Metrics, TemperatureOfDegenerateLogits) {
  // All right, without any doubt: nothing to mend.
  std::vector<float> certain;
  std::vector<float> wrong;
  std::vector<int> labels;
  for (int i = 0; i < 100; ++i) {
    certain.insert(certain.end(), {1e30F, -1e30F});
    wrong.insert(wrong.end(), {-1e30F, 1e30F});
    labels.push_back(0);
  }
  EXPECT_NEAR(fit_temperature(certain, labels, 2).temperature, 1, 1e-6);
  EXPECT_FALSE(fit_temperature(certain, labels, 2).at_bound);
  // All wrong, without any doubt: no temperature is high enough.
  const Calibration lost = fit_temperature(wrong, labels, 2);
  EXPECT_TRUE(lost.at_bound);
  EXPECT_NEAR(lost.temperature, kWidestTemperature, 1);
  // One image; all logits alike; the largest floats.
  const Calibration one = fit_temperature(std::vector<float>{2, 1}, std::vector<int>{1}, 2);
  EXPECT_TRUE(one.temperature > 1 && one.temperature < 3) << one.temperature;
  EXPECT_NEAR(fit_temperature(std::vector<float>(8, 5), std::vector<int>{0, 1}, kFour).temperature,
              1, 1e-6);
  const float most = std::numeric_limits<float>::max();
  for (const int label : {0, 1}) {
    const std::vector<float> largest = {most, -most};
    const Calibration found = fit_temperature(largest, std::vector<int>{label}, 2);
    EXPECT_TRUE(std::isfinite(found.temperature) && found.temperature > 0) << label;
  }
}

TEST(Metrics, LogitsThatAreNotFiniteAreRefused) {
  const float inf = std::numeric_limits<float>::infinity();
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), inf, -inf}) {
    const std::vector<float> row = {0, bad, 1};
    MetricsBuilder builder(3);
    builder.add(std::vector<float>{0, 1, 2}, 0);
    EXPECT_ERROR(builder.add(row, 0), ErrorKind::input, "finite");
    EXPECT_ERROR(softmax(row), ErrorKind::input, "finite");
    EXPECT_ERROR(cross_entropy(row, 0), ErrorKind::input, "finite");
    EXPECT_ERROR(fit_temperature(row, std::vector<int>{0}, 3), ErrorKind::input, "finite");
    EXPECT_ERROR(to_prediction(row), ErrorKind::input, "finite");
    EXPECT_EQ(builder.finish().images, 1) << "what was refused is not counted";
  }
}

TEST(Metrics, HugeLogits) {
  MetricsBuilder builder(2);
  builder.add(std::vector<float>{1e30F, -1e30F}, 0);
  EXPECT_DOUBLE_EQ(builder.finish().loss, 0);
}

}  // namespace
}  // namespace graft
