#include "features/linear_head.h"

#include <cmath>

#include "base/random.h"
#include "support.h"

namespace graft {
namespace {

/// Rows of a few classes that overlap.
FeatureRows clouds(const std::vector<int>& labels, size_t columns, uint64_t seed) {
  Random random(seed);
  FeatureRows out{columns, {}};
  for (const int label : labels)
    for (size_t j = 0; j < columns; ++j)
      out.values.push_back(static_cast<float>(
          random.normal() + (j % 3 == static_cast<size_t>(label) % 3 ? 1.0 : 0.0)));
  return out;
}

std::vector<int> cycling(size_t count, int classes) {
  std::vector<int> out(count);
  for (size_t i = 0; i < count; ++i) out[i] = static_cast<int>(i) % classes;
  return out;
}

std::vector<size_t> numbers(size_t count) {
  std::vector<size_t> out(count);
  for (size_t i = 0; i < count; ++i) out[i] = i;
  return out;
}

/// Cross-entropy and penalty, straight from their definitions.
double loss(const LinearHead& head, const FeatureRows& features, const std::vector<int>& labels,
            double penalty) {
  double sum = 0;
  for (size_t i = 0; i < labels.size(); ++i) {
    std::vector<double> z(head.classes);
    double all = 0;
    for (size_t c = 0; c < head.classes; ++c) {
      z[c] = head.bias[c];
      for (size_t j = 0; j < head.inputs; ++j)
        z[c] += head.weights[j * head.classes + c] * features.row(i)[j];
      all += std::exp(z[c]);
    }
    sum += std::log(all) - z[static_cast<size_t>(labels[i])];
  }
  double squares = 0;
  for (const double w : head.weights) squares += w * w;
  return sum / static_cast<double>(labels.size()) + penalty / 2 * squares;
}

TEST(LinearHead, EndsWhereTheLossIsLeast) {
  const std::vector<int> labels = cycling(331, 3);  // no whole group of rows, no whole tile
  const FeatureRows features = clouds(labels, 7, 1);
  const double penalty = 0.02;
  const LinearHead head = fit_linear_head(features, labels, 3, numbers(331), {penalty, 200}, {});
  const double least = loss(head, features, labels, penalty);
  EXPECT_LT(least, 0.9 * std::log(3)) << "better than chance";
  for (const double step : {-0.02, 0.02}) {
    for (size_t k = 0; k < head.weights.size(); ++k) {
      LinearHead other = head;
      other.weights[k] += step;
      EXPECT_GT(loss(other, features, labels, penalty), least) << k;
    }
    LinearHead other = head;
    other.bias[0] += step;
    EXPECT_GT(loss(other, features, labels, penalty), least);
  }
}

TEST(LinearHead, SameForAnyNumberOfThreads) {
  const std::vector<int> labels = cycling(3000, 11);  // several pieces, two tiles
  const FeatureRows features = clouds(labels, 19, 2);
  const std::vector<size_t> groups = numbers(3000);
  const CrossValidation options{.folds = 3, .seed = 5, .head = {.penalty = 0.05}};
  EXPECT_EQ(cross_validated(features, labels, groups, 11, options, {.threads = 1}),
            cross_validated(features, labels, groups, 11, options, {.threads = 3}));
}

TEST(LinearHead, ProbabilitiesAreOfRowsThatWereNotLearnedFrom) {
  // Each row has a column of its own, by which one that is learned from is known by heart.
  const std::vector<int> labels = cycling(40, 2);
  FeatureRows features{40, std::vector<float>(size_t{40} * 40)};
  for (size_t i = 0; i < 40; ++i) features.values[i * 40 + i] = 10;
  const CrossValidation options{.folds = 5, .seed = 1, .head = {.penalty = 1e-4}};
  const std::vector<float> p =
      cross_validated(features, labels, numbers(40), 2, options, {.threads = 2});
  const LinearHead all = fit_linear_head(features, labels, 2, numbers(40), options.head, {});
  for (size_t i = 0; i < 40; ++i) {
    EXPECT_NEAR(p[i * 2 + static_cast<size_t>(labels[i])], 0.5, 0.1) << i;
    std::vector<float> known(2);
    all.probabilities(features.row(i), known);
    EXPECT_GT(known[static_cast<size_t>(labels[i])], 0.9F) << i;
  }
}

TEST(LinearHead, CopiesShareAFold) {
  // Twenty pairs of equal rows: one that is learned from gives the other away.
  std::vector<int> labels(40);
  FeatureRows features{20, std::vector<float>(size_t{40} * 20)};
  std::vector<size_t> pairs(40);
  for (size_t i = 0; i < 40; ++i) {
    labels[i] = static_cast<int>(i / 2 % 2);
    pairs[i] = i / 2;
    features.values[i * 20 + i / 2] = 10;
  }
  const CrossValidation options{.folds = 5, .seed = 1, .head = {.penalty = 1e-4}};
  const auto mean = [&](const std::vector<size_t>& groups) {
    const std::vector<float> p = cross_validated(features, labels, groups, 2, options, {});
    double sum = 0;
    for (size_t i = 0; i < 40; ++i) sum += p[i * 2 + static_cast<size_t>(labels[i])];
    return sum / 40;
  };
  EXPECT_LT(mean(pairs), 0.6);
  EXPECT_GT(mean(numbers(40)), 0.75);
}

TEST(LinearHead, ColumnsAreStandardised) {
  FeatureRows features{3, {1, 5, -2, 3, 5, 2, 5, 5, 6}};
  standardize(features);
  for (size_t j : {0, 2}) {
    double sum = 0, squares = 0;
    for (size_t i = 0; i < 3; ++i) {
      sum += features.row(i)[j];
      squares += features.row(i)[j] * features.row(i)[j];
    }
    EXPECT_NEAR(sum, 0, 1e-6);
    EXPECT_NEAR(squares / 3, 1, 1e-6);
  }
  EXPECT_EQ(features.row(2)[1], 0) << "a constant one says nothing";
}

}  // namespace
}  // namespace graft
