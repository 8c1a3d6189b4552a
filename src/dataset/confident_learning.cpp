// Which labels are probably wrong, from probabilities alone: graft/labels.h.
#include <algorithm>
#include <cmath>
#include <vector>

#include "base/fail.h"
#include "graft/labels.h"

namespace graft {
namespace {

/// Rows of `classes` values.
struct Table {
  std::span<const float> values;
  size_t classes;
  [[nodiscard]] std::span<const float> row(size_t i) const {
    return values.subspan(i * classes, classes);
  }
};

/// How sure of a class one has to be to count an image as its: the mean probability of the class
/// among the images that bear its label. So a class that is hard to tell is not robbed by an easy
/// one.
std::vector<double> thresholds(const Table& p, std::span<const int> labels) {
  std::vector<double> sums(p.classes);
  std::vector<size_t> counts(p.classes);
  for (size_t i = 0; i < labels.size(); ++i) {
    const auto label = static_cast<size_t>(labels[i]);
    sums[label] += static_cast<double>(p.row(i)[label]);
    ++counts[label];
  }
  for (size_t c = 0; c < p.classes; ++c)  // a class of no image takes none
    sums[c] = counts[c] > 0 ? sums[c] / static_cast<double>(counts[c]) : 2;
  return sums;
}

/// The confident joint, [label][class], scaled so that each row sums up to the images of its label:
/// about how many there are of each pair.
std::vector<std::vector<double>> estimate_joint(const Table& p, std::span<const int> labels) {
  const std::vector<double> least = thresholds(p, labels);
  std::vector<std::vector<double>> joint(p.classes, std::vector<double>(p.classes));
  std::vector<double> images(p.classes);
  for (size_t i = 0; i < labels.size(); ++i) {
    const auto label = static_cast<size_t>(labels[i]);
    ++images[label];
    size_t best = p.classes;
    for (size_t c = 0; c < p.classes; ++c)
      if (static_cast<double>(p.row(i)[c]) >= least[c] &&
          (best == p.classes || p.row(i)[c] > p.row(i)[best]))
        best = c;
    if (best < p.classes) ++joint[label][best];
  }
  for (size_t label = 0; label < p.classes; ++label) {
    double sum = 0;
    for (const double count : joint[label]) sum += count;
    if (sum == 0) joint[label][label] = sum = 1;
    for (double& count : joint[label]) count *= images[label] / sum;
  }
  return joint;
}

LabelDoubt doubt_of(const Table& p, size_t row, int label) {
  LabelDoubt out{row, -1, 0, static_cast<double>(p.row(row)[static_cast<size_t>(label)])};
  for (int c = 0; c < static_cast<int>(p.classes); ++c) {
    const auto value = static_cast<double>(p.row(row)[static_cast<size_t>(c)]);
    if (c == label || (out.suggestion >= 0 && value <= out.confidence)) continue;
    out.suggestion = c;
    out.confidence = value;
  }
  return out;
}

}  // namespace

LabelCheck confident_learning(std::span<const float> probabilities, std::span<const int> labels,
                              size_t classes) {
  if (classes < 2 || probabilities.size() != labels.size() * classes)
    fail(ErrorKind::usage, "confident learning: {} probabilities of {} labels in {} classes",
         probabilities.size(), labels.size(), classes);
  for (const int label : labels)
    if (label < 0 || static_cast<size_t>(label) >= classes)
      fail(ErrorKind::usage, "confident learning: label {} is none of {} classes", label, classes);
  for (const float value : probabilities)
    if (!(value >= 0 && value <= 1))
      fail(ErrorKind::usage, "confident learning: {} is no probability", value);
  const Table p{probabilities, classes};
  LabelCheck out;
  const std::vector<std::vector<double>> joint = estimate_joint(p, labels);
  double wrong = 0;
  constexpr double kLeast = 0.5;
  for (size_t label = 0; label < classes; ++label)
    for (size_t other = 0; other < classes; ++other) {
      if (other == label) continue;
      wrong += joint[label][other];
      if (joint[label][other] >= kLeast)
        out.pairs.push_back(
            {static_cast<int>(label), static_cast<int>(other), joint[label][other]});
    }
  std::stable_sort(out.pairs.begin(), out.pairs.end(),
                   [](const LabelPair& a, const LabelPair& b) { return a.images > b.images; });
  out.share = labels.empty() ? 0 : wrong / static_cast<double>(labels.size());
  out.ranking.reserve(labels.size());
  for (size_t i = 0; i < labels.size(); ++i) out.ranking.push_back(doubt_of(p, i, labels[i]));
  // By the odds of label against suggestion, without a division by zero. docs/data.md says what
  // speaks for this order.
  std::stable_sort(out.ranking.begin(), out.ranking.end(),
                   [](const LabelDoubt& a, const LabelDoubt& b) {
                     return a.label_confidence * b.confidence < b.label_confidence * a.confidence;
                   });
  const auto estimate = static_cast<size_t>(std::llround(wrong));
  while (out.doubtful < std::min(estimate, out.ranking.size()) &&
         out.ranking[out.doubtful].confidence > out.ranking[out.doubtful].label_confidence)
    ++out.doubtful;
  return out;
}

}  // namespace graft
