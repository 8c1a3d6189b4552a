#include "report/compare.h"

#include <algorithm>
#include <cmath>

namespace graft {
namespace {

constexpr double kZ95 = 1.959964;  // standard normal, two-sided 95 %

bool both_have(const PredictionRow& a, const PredictionRow& b, std::string_view split) {
  return a.split == split && b.split == split;
}

/// The interval of a difference of matched proportions: Wald's with half an image added to each of
/// the four cells (Agresti and Min, "Simple improved confidence intervals for comparing matched
/// proportions", 2005).
void fill_difference(PairComparison& pair) {
  if (pair.images == 0) return;
  pair.p = mcnemar(pair.only_a, pair.only_b);
  pair.difference =
      static_cast<double>(pair.only_b - pair.only_a) / static_cast<double>(pair.images);
  const double n = static_cast<double>(pair.images) + 2;
  const double a = static_cast<double>(pair.only_a) + 0.5;
  const double b = static_cast<double>(pair.only_b) + 0.5;
  const double centre = (b - a) / n;
  const double half = kZ95 * std::sqrt(a + b - (b - a) * (b - a) / n) / n;
  pair.low = std::max(-1.0, centre - half);
  pair.high = std::min(1.0, centre + half);
}

PairComparison compare_pair(const std::vector<ComparedRun>& runs, size_t a, size_t b) {
  PairComparison pair;
  pair.a = a;
  pair.b = b;
  std::map<std::string, ClassComparison> classes;
  std::set<std::string> splits;
  for (const std::string& key : common_images(runs[a], runs[b])) {
    const PredictionRow& of_a = runs[a].held_back.at(key);
    const PredictionRow& of_b = runs[b].held_back.at(key);
    const bool right_a = of_a.predicted == of_a.label;
    const bool right_b = of_b.predicted == of_b.label;
    splits.insert(of_a.split == of_b.split ? of_a.split : "unseen");
    ++pair.images;
    pair.both += right_a && right_b ? 1 : 0;
    pair.only_a += right_a && !right_b ? 1 : 0;
    pair.only_b += right_b && !right_a ? 1 : 0;
    ClassComparison& mine = classes[of_a.label];
    ++mine.images;
    mine.right_a += right_a ? 1 : 0;
    mine.right_b += right_b ? 1 : 0;
    if (right_a != right_b) pair.flips.push_back({&of_a, &of_b});
  }
  pair.split = splits.size() == 1 ? *splits.begin() : "unseen";
  for (auto& [label, mine] : classes) {
    mine.label = label;
    pair.classes.push_back(std::move(mine));
  }
  const auto certainty = [](const Flip& flip) { return flip.a->probability + flip.b->probability; };
  std::stable_sort(pair.flips.begin(), pair.flips.end(),
                   [&](const Flip& x, const Flip& y) { return certainty(x) > certainty(y); });
  fill_difference(pair);
  return pair;
}

}  // namespace

double mcnemar(int64_t only_a, int64_t only_b) {
  const auto n = static_cast<double>(only_a + only_b);
  if (n == 0) return 1;
  double tail = 0;
  for (int64_t k = 0; k <= std::min(only_a, only_b); ++k) {
    const auto i = static_cast<double>(k);
    tail += std::exp(std::lgamma(n + 1) - std::lgamma(i + 1) - std::lgamma(n - i + 1) -
                     n * std::log(2.0));
  }
  return std::min(1.0, 2 * tail);
}

std::vector<std::string> common_images(const ComparedRun& a, const ComparedRun& b) {
  std::vector<std::string> all;
  std::vector<std::string> tests;
  for (const auto& [key, of_a] : a.held_back) {
    const auto of_b = b.held_back.find(key);
    // One that was relabelled meanwhile is another question.
    if (of_b == b.held_back.end() || of_b->second.label != of_a.label) continue;
    if (a.trained.contains(key) || b.trained.contains(key)) continue;
    all.push_back(key);
    if (both_have(of_a, of_b->second, "test")) tests.push_back(key);
  }
  return tests.empty() ? all : tests;
}

std::vector<PairComparison> compare_pairs(const std::vector<ComparedRun>& runs) {
  std::vector<PairComparison> out;
  for (size_t a = 0; a < runs.size(); ++a)
    for (size_t b = a + 1; b < runs.size(); ++b) out.push_back(compare_pair(runs, a, b));
  return out;
}

}  // namespace graft
