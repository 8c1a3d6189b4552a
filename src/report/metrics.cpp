#include "report/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace graft {
namespace {

constexpr size_t kBins = 15;
constexpr int64_t kTop = 5;

double ratio(int64_t part, int64_t whole) {
  return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 0.0;
}

}  // namespace

MetricsBuilder::MetricsBuilder(size_t classes)
    : classes_(classes), bins_(kBins), confusion_(classes, std::vector<int64_t>(classes, 0)) {}

void MetricsBuilder::add(std::span<const float> logits, int label) {
  const double most = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - most);
  loss_ += std::log(sum) + most - logits[label];
  // Of equal logits the first class wins, here as in Prediction::ranking.
  const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
  const bool correct = best == label;
  int64_t before = 0;  // classes ranked before the true one
  for (size_t c = 0; c < classes_; ++c)
    before +=
        logits[c] > logits[label] || (logits[c] == logits[label] && static_cast<int>(c) < label);
  top1_ += correct ? 1 : 0;
  top5_ += before < kTop ? 1 : 0;
  ++confusion_[label][best];
  const double confidence = 1.0 / sum;
  const size_t bin = std::min(static_cast<size_t>(confidence * kBins), kBins - 1);
  bins_[bin].confidence += confidence;
  bins_[bin].correct += correct ? 1 : 0;
  ++images_;
}

Metrics MetricsBuilder::finish() const {
  Metrics m;
  m.images = images_;
  m.top1 = ratio(top1_, images_);
  m.top5 = ratio(top5_, images_);
  m.confusion = confusion_;
  if (images_ == 0) return m;
  m.loss = loss_ / static_cast<double>(images_);
  for (const Bin& bin : bins_)
    m.ece += std::abs(bin.confidence - bin.correct) / static_cast<double>(images_);
  for (size_t c = 0; c < classes_; ++c) {
    int64_t predicted = 0;
    ClassMetrics row;
    for (size_t k = 0; k < classes_; ++k) {
      predicted += confusion_[k][c];
      row.support += confusion_[c][k];
    }
    row.precision = ratio(confusion_[c][c], predicted);
    row.recall = ratio(confusion_[c][c], row.support);
    const double both = row.precision + row.recall;
    row.f1 = both > 0 ? 2 * row.precision * row.recall / both : 0;
    m.per_class.push_back(row);
  }
  return m;
}

nlohmann::json metrics_json(const Metrics& metrics, const std::vector<std::string>& classes) {
  nlohmann::json out = {{"images", metrics.images}, {"top1", metrics.top1},
                        {"loss", metrics.loss},     {"ece", metrics.ece},
                        {"classes", classes},       {"confusion", metrics.confusion}};
  if (classes.size() > kTop) out["top5"] = metrics.top5;
  out["per_class"] = nlohmann::json::array();
  for (size_t c = 0; c < metrics.per_class.size(); ++c) {
    const ClassMetrics& row = metrics.per_class[c];
    out["per_class"].push_back({{"class", classes[c]},
                                {"precision", row.precision},
                                {"recall", row.recall},
                                {"f1", row.f1},
                                {"support", row.support}});
  }
  return out;
}

std::string metrics_text(const Metrics& metrics, const std::vector<std::string>& classes) {
  size_t width = 8;
  for (const std::string& name : classes) width = std::max(width, name.size());
  std::string text = fmt::format("{:<{}}  precision  recall      f1  support\n", "class", width);
  for (size_t c = 0; c < classes.size(); ++c) {
    const ClassMetrics& row = metrics.per_class[c];
    text += fmt::format("{:<{}}  {:>9.3f}  {:>6.3f}  {:>6.3f}  {:>7}\n", classes[c], width,
                        row.precision, row.recall, row.f1, row.support);
  }
  constexpr size_t kWidestMatrix = 12;
  if (classes.size() <= kWidestMatrix) {
    text += "\nconfusion (rows true, columns predicted)\n";
    text += fmt::format("{:<{}}", "", width);
    for (const std::string& name : classes) text += fmt::format("  {:>6.6}", name);
    text += '\n';
    for (size_t c = 0; c < classes.size(); ++c) {
      text += fmt::format("{:<{}}", classes[c], width);
      for (const int64_t count : metrics.confusion[c]) text += fmt::format("  {:>6}", count);
      text += '\n';
    }
  }
  text += fmt::format("\nimages {}  top-1 {:.4f}", metrics.images, metrics.top1);
  if (classes.size() > kTop) text += fmt::format("  top-5 {:.4f}", metrics.top5);
  return text + fmt::format("  loss {:.4f}  ECE {:.4f}\n", metrics.loss, metrics.ece);
}

}  // namespace graft
