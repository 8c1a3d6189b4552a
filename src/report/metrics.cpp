#include "report/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/columns.h"
#include "base/fail.h"
#include "base/file.h"
#include "base/random.h"
#include "model/logits.h"

namespace graft {
namespace {

constexpr size_t kBins = 15;
constexpr int64_t kTop = 5;
constexpr size_t kResamples = 1000;
constexpr double kTail = 0.025;  // left out at each end of an interval

double ratio(int64_t part, int64_t whole) {
  return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 0.0;
}

/// Images of a class and images taken for it, enough for F1 = 2 · right / (predicted + support).
struct ClassCounts {
  int64_t right = 0;
  int64_t predicted = 0;
  int64_t support = 0;
  /// Images that neither have a class nor are taken for it say nothing of it.
  [[nodiscard]] bool occurs() const { return predicted + support > 0; }
};

std::vector<ClassCounts> counts_of(const std::vector<std::vector<int64_t>>& confusion) {
  std::vector<ClassCounts> counts(confusion.size());
  for (size_t c = 0; c < confusion.size(); ++c) {
    counts[c].right = confusion[c][c];
    for (size_t k = 0; k < confusion.size(); ++k) {
      counts[c].predicted += confusion[k][c];
      counts[c].support += confusion[c][k];
    }
  }
  return counts;
}

ClassMetrics metrics_of(const ClassCounts& counts) {
  ClassMetrics row;
  row.support = counts.support;
  row.precision = ratio(counts.right, counts.predicted);
  row.recall = ratio(counts.right, counts.support);
  row.f1 = 2 * ratio(counts.right, counts.predicted + counts.support);
  return row;
}

/// Means over classes, each with its weight.
ClassMetrics mean_of(const std::vector<ClassMetrics>& rows, const std::vector<double>& weights) {
  ClassMetrics mean;
  double total = 0;
  double auc = 0;
  double auc_total = 0;
  for (size_t c = 0; c < rows.size(); ++c) {
    const ClassMetrics& row = rows[c];
    const double w = weights[c];
    total += w;
    mean.precision += w * row.precision;
    mean.recall += w * row.recall;
    mean.f1 += w * row.f1;
    mean.support += row.support;
    if (row.auc) {
      auc += w * *row.auc;
      auc_total += w;
    }
  }
  if (total > 0) {
    mean.precision /= total;
    mean.recall /= total;
    mean.f1 /= total;
  }
  if (auc_total > 0) mean.auc = auc / auc_total;
  return mean;
}

double macro_f1(const std::vector<ClassCounts>& counts) {
  double sum = 0;
  int64_t occurring = 0;
  for (const ClassCounts& c : counts) {
    sum += metrics_of(c).f1;
    occurring += c.occurs() ? 1 : 0;
  }
  return sum / static_cast<double>(occurring);
}

Interval percentiles(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const auto at = [&](double share) {
    return values[static_cast<size_t>(std::lround(share * static_cast<double>(values.size() - 1)))];
  };
  return {at(kTail), at(1 - kTail)};
}

nlohmann::json to_json(const ClassMetrics& row) {
  nlohmann::json out = {{"precision", row.precision},
                        {"recall", row.recall},
                        {"f1", row.f1},
                        {"support", row.support},
                        {"auc", nullptr}};
  if (row.auc) out["auc"] = *row.auc;
  return out;
}

std::string auc_text(const ClassMetrics& row) {
  return row.auc ? fmt::format("{:.4f}", *row.auc) : "-";
}

}  // namespace

double cross_entropy(std::span<const float> logits, int label) {
  check_logits(logits);
  const double most = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - most);
  return std::log(sum) + most - logits[label];
}

MetricsBuilder::MetricsBuilder(size_t classes)
    : classes_(classes), confusion_(classes, std::vector<int64_t>(classes, 0)) {}

void MetricsBuilder::add(std::span<const float> logits, int label) {
  check_logits(logits);
  // Of equal logits the first class wins, here as in Prediction::ranking.
  const auto best =
      static_cast<int>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  int64_t before = 0;  // classes ranked before the true one
  for (size_t c = 0; c < classes_; ++c)
    before +=
        logits[c] > logits[label] || (logits[c] == logits[label] && static_cast<int>(c) < label);
  top5_ += before < kTop ? 1 : 0;
  ++confusion_[label][best];
  labels_.push_back(label);
  predicted_.push_back(best);
  losses_.push_back(cross_entropy(logits, label));
  const std::vector<double> p = softmax(logits);
  probabilities_.insert(probabilities_.end(), p.begin(), p.end());
}

/// The Mann-Whitney statistic: the chance that an image of the class has a higher probability of
/// it than another image, ties counted half.
std::optional<double> MetricsBuilder::auc(size_t c) const {
  std::vector<size_t> order(labels_.size());
  std::iota(order.begin(), order.end(), 0);
  const auto p = [&](size_t i) { return probabilities_[i * classes_ + c]; };
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return p(a) < p(b); });
  double ranks = 0;
  double positives = 0;
  for (size_t i = 0; i < order.size();) {
    size_t end = i;
    double tied = 0;  // positives among equals
    for (; end < order.size() && p(order[end]) == p(order[i]); ++end)
      tied += labels_[order[end]] == static_cast<int>(c) ? 1 : 0;
    ranks += tied * (static_cast<double>(i + end + 1) / 2);
    positives += tied;
    i = end;
  }
  const double negatives = static_cast<double>(labels_.size()) - positives;
  if (positives == 0 || negatives == 0) return std::nullopt;
  return (ranks - positives * (positives + 1) / 2) / (positives * negatives);
}

void MetricsBuilder::add_intervals(Metrics& metrics) const {
  const size_t n = labels_.size();
  std::vector<double> top1, loss, f1;
  Random random(0);
  for (size_t k = 0; k < kResamples; ++k) {
    int64_t correct = 0;
    double sum = 0;
    std::vector<ClassCounts> counts(classes_);
    for (size_t draw = 0; draw < n; ++draw) {
      const size_t i = random.below(n);
      const bool right = labels_[i] == predicted_[i];
      correct += right ? 1 : 0;
      sum += losses_[i];
      counts[labels_[i]].right += right ? 1 : 0;
      ++counts[labels_[i]].support;
      ++counts[predicted_[i]].predicted;
    }
    top1.push_back(ratio(correct, static_cast<int64_t>(n)));
    loss.push_back(sum / static_cast<double>(n));
    f1.push_back(macro_f1(counts));
  }
  metrics.top1_interval = percentiles(std::move(top1));
  metrics.loss_interval = percentiles(std::move(loss));
  metrics.macro_f1_interval = percentiles(std::move(f1));
  // Where all are right, or none, so is every resample: that says nothing of how sure it is.
  if (metrics.top1 > 0 && metrics.top1 < 1) return;
  constexpr double kNormal = 1.959964;  // its 97.5th percentile
  const auto images = static_cast<double>(n);
  const double doubt = kNormal * kNormal / (images + kNormal * kNormal);
  const bool right = metrics.top1 == 1;
  metrics.top1_interval = right ? Interval{1 - doubt, 1} : Interval{0, doubt};
  metrics.macro_f1_interval =
      right ? Interval{metrics.macro.f1 * (1 - doubt), metrics.macro.f1} : Interval{0, doubt};
}

Metrics MetricsBuilder::finish() const {
  Metrics m;
  const auto n = static_cast<double>(labels_.size());
  m.images = static_cast<int64_t>(labels_.size());
  m.confusion = confusion_;
  m.per_class.resize(classes_);
  m.reliability.resize(kBins);
  if (m.images == 0) return m;
  int64_t correct = 0;
  for (size_t i = 0; i < labels_.size(); ++i) {
    const double confidence = probabilities_[i * classes_ + static_cast<size_t>(predicted_[i])];
    const bool right = predicted_[i] == labels_[i];
    ReliabilityBin& bin =
        m.reliability[std::min(static_cast<size_t>(confidence * kBins), kBins - 1)];
    ++bin.count;
    bin.confidence += confidence;
    bin.accuracy += right ? 1 : 0;
    correct += right ? 1 : 0;
  }
  for (ReliabilityBin& bin : m.reliability) {
    m.ece += std::abs(bin.confidence - bin.accuracy) / n;
    if (bin.count == 0) continue;
    bin.confidence /= static_cast<double>(bin.count);
    bin.accuracy /= static_cast<double>(bin.count);
  }
  m.top1 = ratio(correct, m.images);
  m.top5 = ratio(top5_, m.images);
  m.loss = std::accumulate(losses_.begin(), losses_.end(), 0.0) / n;
  std::vector<double> occurring;
  std::vector<double> supports;
  for (const ClassCounts& counts : counts_of(confusion_)) {
    m.per_class[occurring.size()] = metrics_of(counts);
    occurring.push_back(counts.occurs() ? 1 : 0);
    supports.push_back(static_cast<double>(counts.support));
  }
  for (size_t c = 0; c < classes_; ++c) m.per_class[c].auc = auc(c);
  m.macro = mean_of(m.per_class, occurring);
  m.weighted = mean_of(m.per_class, supports);
  add_intervals(m);
  return m;
}

void check_metrics(const Metrics& metrics, const std::vector<std::string>& classes) {
  bool fits =
      metrics.per_class.size() == classes.size() && metrics.confusion.size() == classes.size();
  for (const std::vector<int64_t>& row : metrics.confusion)
    fits = fits && row.size() == classes.size();
  if (!fits)
    fail(ErrorKind::usage, "metrics of {} classes where {} are named", metrics.per_class.size(),
         classes.size());
}

nlohmann::json metrics_document(const Metrics& metrics, const std::vector<std::string>& classes) {
  check_metrics(metrics, classes);
  const auto interval = [](const Interval& i) { return nlohmann::json::array({i.low, i.high}); };
  nlohmann::json out = {{"images", metrics.images}, {"top1", metrics.top1},
                        {"loss", metrics.loss},     {"ece", metrics.ece},
                        {"classes", classes},       {"confusion", metrics.confusion}};
  if (classes.size() > kTop) out["top5"] = metrics.top5;
  out["macro"] = to_json(metrics.macro);
  out["weighted"] = to_json(metrics.weighted);
  out["intervals"] = {{"top1", interval(metrics.top1_interval)},
                      {"loss", interval(metrics.loss_interval)},
                      {"macro_f1", interval(metrics.macro_f1_interval)}};
  out["reliability"] = nlohmann::json::array();
  for (const ReliabilityBin& bin : metrics.reliability)
    out["reliability"].push_back(
        {{"count", bin.count}, {"confidence", bin.confidence}, {"accuracy", bin.accuracy}});
  out["per_class"] = nlohmann::json::array();
  for (size_t c = 0; c < metrics.per_class.size(); ++c) {
    nlohmann::json row = to_json(metrics.per_class[c]);
    row["class"] = classes[c];
    out["per_class"].push_back(std::move(row));
  }
  return out;
}

std::string metrics_text(const Metrics& metrics, const std::vector<std::string>& classes) {
  check_metrics(metrics, classes);
  // Names are whole as long as the line fits a terminal of the usual width.
  constexpr size_t kColumns = 80;
  constexpr size_t kFigureColumns = 44;
  size_t width = 12;
  for (const std::string& name : classes) width = std::max(width, columns_of(printable(name)));
  width = std::min(width, kColumns - kFigureColumns);
  std::string text = in_columns("class", width) + "  precision  recall      f1     auc  support\n";
  const auto line = [&](const std::string& name, const ClassMetrics& row) {
    text += in_columns(name, width) + fmt::format("  {:>9.3f}  {:>6.3f}  {:>6.3f}  {:>6}  {:>7}\n",
                                                  row.precision, row.recall, row.f1, auc_text(row),
                                                  row.support);
  };
  // Names from a model file may hold anything.
  for (size_t c = 0; c < classes.size(); ++c) line(printable(classes[c]), metrics.per_class[c]);
  line("macro avg", metrics.macro);
  line("weighted avg", metrics.weighted);
  constexpr size_t kWidestMatrix = 12;
  if (classes.size() <= kWidestMatrix) {
    text += "\nconfusion (rows true, columns predicted)\n";
    text += std::string(width, ' ');
    constexpr size_t kLeastCell = 6;
    size_t longest = kLeastCell;
    for (const std::string& name : classes)
      longest = std::max(longest, columns_of(printable(name)));
    const size_t room = (kColumns - width) / classes.size();
    const size_t cell = std::clamp(room < 2 ? 0 : room - 2, kLeastCell, longest);
    for (const std::string& name : classes) text += "  " + in_columns(printable(name), cell, true);
    text += '\n';
    for (size_t c = 0; c < classes.size(); ++c) {
      text += in_columns(printable(classes[c]), width);
      for (const int64_t count : metrics.confusion[c]) text += fmt::format("  {:>{}}", count, cell);
      text += '\n';
    }
  }
  text += fmt::format("\nimages {}  top-1 {:.4f} (95 % between {:.4f} and {:.4f})", metrics.images,
                      metrics.top1, metrics.top1_interval.low, metrics.top1_interval.high);
  if (classes.size() > kTop) text += fmt::format("  top-5 {:.4f}", metrics.top5);
  return text + fmt::format("  loss {:.4f}  ECE {:.4f}\n", metrics.loss, metrics.ece);
}

std::string metrics_json(const Metrics& metrics, const std::vector<std::string>& classes) {
  return metrics_document(metrics, classes)
      .dump(2, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace graft
