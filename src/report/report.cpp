#include "report/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "base/fail.h"
#include "base/file.h"
#include "base/progress.h"
#include "model/gradcam.h"
#include "report/chart.h"
#include "report/data_page.h"
#include "report/figures.h"
#include "report/html.h"
#include "report/label_page.h"
#include "report/model_card.h"

namespace graft {
namespace {

constexpr int kThumbnail = 150;
constexpr size_t kMistakes = 12;
constexpr size_t kUnsure = 12;
constexpr size_t kImagesPerClass = 4;
constexpr size_t kMostClassesShown = 30;
constexpr size_t kMostConfusions = 20;
constexpr std::string_view kChosenOn =
    "on which the epoch was chosen and the probabilities were calibrated: better than images that "
    "played no part would have it";

std::string percent(double share) { return fmt::format("{:.1f} %", share * 100); }

std::string tile(const std::string& value, std::string_view what) {
  return fmt::format("<div class=\"tile\"><b>{}</b><span>{}</span></div>\n", value, what);
}

class Report {
 public:
  explicit Report(const ReportJob& job) : job_(job), classes_(job.predictions.classes) {}

  std::string page() {
    const Metrics& m = job_.metrics;
    const ModelMetadata& about = job_.model.metadata;
    std::error_code error;
    const fs::path root = fs::weakly_canonical(job_.dataset.root, error);
    const std::string title =
        fmt::format("{} on {}", about.network.backbone, printable(root.filename()));
    std::string body = fmt::format(
        "<header>\n<h1>{}</h1>\n<p class=\"dim\">{}{} images, {} classes{}</p>\n</header>\n",
        html::escape(title), m.images, split_name(), classes_.size(), trained_on());
    body += "<nav>";
    for (const auto& [id, heading] : {std::pair{"curves", "Curves"},
                                      {"classes", "Classes"},
                                      {"mistakes", "Mistakes"},
                                      {"data", "Data"},
                                      {"network", "Network"},
                                      {"card", "Model card"}})
      if (std::string_view(id) != "curves" || !job_.run.history.empty())
        body += fmt::format("<a href=\"#{}\">{}</a>", id, heading);
    body += "</nav>\n<div class=\"tiles\">\n";
    body +=
        tile(percent(m.top1), fmt::format("top-1, 95 % in {:.1f} – {:.1f}",
                                          m.top1_interval.low * 100, m.top1_interval.high * 100));
    if (classes_.size() > 5) body += tile(percent(m.top5), "top-5");
    body += tile(fmt::format("{:.3f}", m.macro.f1), "macro F1");
    if (m.macro.auc) body += tile(fmt::format("{:.4f}", *m.macro.auc), "macro ROC AUC");
    body += tile(fmt::format("{:.4f}", m.loss), "loss");
    body += tile(fmt::format("{:.4f}", m.ece), "ECE");
    body += "</div>\n";
    curves(body);
    per_class(body);
    calibration(body);
    images(body);
    data(body);
    if (job_.labels != nullptr) body += label_section(job_.dataset, *job_.labels);
    network(body);
    configuration(body);
    card(body);
    return html::page(title, body);
  }

 private:
  [[nodiscard]] std::string split_name() const {
    return job_.split == "val" ? " validation" : job_.split == "all" ? "" : " " + job_.split;
  }

  [[nodiscard]] std::string trained_on() const {
    if (job_.trained_on == 0) return "";
    return fmt::format("; {} of them are among the training images, so unseen images will do worse",
                       job_.trained_on);
  }

  void curves(std::string& body) const {
    if (job_.run.history.empty()) return;
    const auto chart = [&](const char* title, const char* y, auto train, auto val) {
      Chart out{title, "epoch", y, false, {{"training", {}}}, {}};
      const auto add = [](ChartSeries& series, int epoch, double value) {
        if (std::isfinite(value)) series.points.emplace_back(epoch, value);
      };
      for (const EpochRecord& row : job_.run.history) add(out.series[0], row.epoch, train(row));
      if constexpr (!std::is_same_v<decltype(val), std::nullptr_t>) {
        out.series.push_back({"validation", {}});
        for (const EpochRecord& row : job_.run.history) add(out.series[1], row.epoch, val(row));
      }
      if (job_.run.best_epoch() > 0)
        out.marks.emplace_back(job_.run.best_epoch(),
                               fmt::format("best: {}", job_.run.best_epoch()));
      return chart_svg(out);
    };
    std::string content = "<div class=\"charts\">\n";
    content += chart(
        "Loss", "cross-entropy", [](const EpochRecord& r) { return r.loss; },
        [](const EpochRecord& r) { return r.val_loss; });
    content += chart(
        "Accuracy", "top-1", [](const EpochRecord& r) { return r.accuracy; },
        [](const EpochRecord& r) { return r.val_accuracy; });
    content += chart(
        "Learning rate", "rate", [](const EpochRecord& r) { return r.learning_rate; }, nullptr);
    double seconds = 0;
    for (const EpochRecord& row : job_.run.history) seconds += row.seconds;
    content += fmt::format("</div>\n<p class=\"dim\">{} epochs in {}.</p>\n",
                           job_.run.history.size(), format_duration(seconds));
    body += html::section("curves", "Curves", content);
  }

  void per_class(std::string& body) const {
    std::vector<std::vector<std::string>> rows;
    const auto row = [&](const std::string& name, const ClassMetrics& m) {
      rows.push_back({name, fmt::format("{:.3f}", m.precision), fmt::format("{:.3f}", m.recall),
                      fmt::format("{:.3f}", m.f1), m.auc ? fmt::format("{:.4f}", *m.auc) : "–",
                      std::to_string(m.support)});
    };
    for (size_t c = 0; c < classes_.size(); ++c)
      row(html::escape(classes_[c]), job_.metrics.per_class[c]);
    row("<i>macro average</i>", job_.metrics.macro);
    row("<i>weighted average</i>", job_.metrics.weighted);
    std::string content =
        html::table({"class", "precision", "recall", "F1", "ROC AUC", "images"}, rows);
    confusion(content);
    body += html::section("classes", "Classes", content);
  }

  void confusion(std::string& content) const {
    const Metrics& m = job_.metrics;
    content += "<h3>Confusion matrix</h3>\n";
    if (classes_.size() <= kMostInSvg) {
      content += "<div class=\"scroll\" tabindex=\"0\">" + confusion_svg(m, classes_) +
                 "</div>\n<p class=\"dim\">Rows are true classes, columns predicted ones; orange "
                 "cells are mistakes, darker where a larger share of the row went there.</p>\n";
      return;
    }
    constexpr int kPixels = 600;
    const int cell = std::max(1, kPixels / static_cast<int>(classes_.size()));
    content += html::image(confusion_image(m, cell), "confusion matrix");
    content +=
        "<p class=\"dim\">Rows are true classes, columns predicted ones, in the order of the "
        "table; darker where a larger share of the row went there.</p>\n";
    std::vector<std::array<int64_t, 3>> mistakes;  // count, true, predicted
    for (size_t r = 0; r < classes_.size(); ++r)
      for (size_t c = 0; c < classes_.size(); ++c)
        if (r != c && m.confusion[r][c] > 0)
          mistakes.push_back({m.confusion[r][c], static_cast<int64_t>(r), static_cast<int64_t>(c)});
    std::stable_sort(mistakes.begin(), mistakes.end(),
                     [](const auto& a, const auto& b) { return a[0] > b[0]; });
    mistakes.resize(std::min(mistakes.size(), kMostConfusions));
    std::vector<std::vector<std::string>> rows;
    rows.reserve(mistakes.size());
    for (const auto& [count, truth, predicted] : mistakes)
      rows.push_back({html::escape(classes_[truth]), html::escape(classes_[predicted]),
                      std::to_string(count)});
    content += html::table({"class", "taken for", "images"}, rows);
  }

  void calibration(std::string& body) const {
    std::string content = reliability_svg(job_.metrics);
    content +=
        "<p>Of the images classified with a confidence of 0.8, eight in ten should be right: "
        "bars "
        "that end on the dashed line. Paler bars stand for fewer images.";
    const nlohmann::json& training = job_.model.metadata.training;
    if (training.contains("temperature"))
      content += fmt::format(
          " The logits were divided by a temperature of {:.3f}, fitted on the "
          "validation images.",
          training["temperature"].get<double>());
    body += html::section("calibration", "Calibration", content + "</p>\n");
  }

  /// Worst mistakes and least sure images, each beside its Grad-CAM map.
  void images(std::string& body) {
    const Predictions& p = job_.predictions;
    std::vector<size_t> order(p.samples.size());
    std::iota(order.begin(), order.end(), 0);
    std::vector<double> sureness, losses;
    for (size_t i = 0; i < order.size(); ++i) {
      const std::vector<double> q = softmax(p.row(i));
      sureness.push_back(*std::max_element(q.begin(), q.end()));
      losses.push_back(cross_entropy(p.row(i), p.samples[i].label));
    }
    std::vector<size_t> mistakes;
    std::copy_if(order.begin(), order.end(), std::back_inserter(mistakes),
                 [&](size_t i) { return p.predicted(i) != p.samples[i].label; });
    const size_t wrong = mistakes.size();
    std::stable_sort(mistakes.begin(), mistakes.end(),
                     [&](size_t a, size_t b) { return losses[a] > losses[b]; });
    mistakes.resize(std::min(wrong, kMistakes));
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return sureness[a] < sureness[b]; });
    order.resize(std::min(order.size(), kUnsure));

    GradCam cam(job_.model, "", job_.context.thread_count());
    Progress progress(job_.context, "report", mistakes.size() + order.size(), "images");
    size_t done = 0;
    const auto grid = [&](const std::vector<size_t>& chosen) {
      std::string out = "<div class=\"grid pairs\">\n";
      for (const size_t i : chosen) {
        job_.context.check_stop();
        out += explained(cam, i);
        progress.update(++done);
      }
      return out + "</div>\n";
    };
    std::string content = fmt::format(
        "<p>{} of {} images were classified wrongly. Right of each image: where the "
        "evidence for the predicted class lies (Grad-CAM at {}; blue none, red most).</p>\n",
        wrong, p.samples.size(), html::escape(cam.layer()));
    if (!mistakes.empty()) content += "<h3>Worst mistakes</h3>\n" + grid(mistakes);
    content += "<h3>Least sure</h3>\n" + grid(order);
    progress.finish();
    body += html::section("mistakes", "Mistakes", content);
  }

  std::string explained(GradCam& cam, size_t i) const {
    const Predictions& p = job_.predictions;
    const Sample& sample = p.samples[i];
    const int predicted = p.predicted(i);
    const std::vector<double> q = softmax(p.row(i));
    const std::string name = printable(sample.path.filename());
    std::string pair;
    try {
      const Image image = load_image(sample.path);
      const double scale =
          std::min(1.0, static_cast<double>(kThumbnail) / std::max(image.width, image.height));
      const Image small =
          resize(image, std::max(1, static_cast<int>(image.width * scale)),
                 std::max(1, static_cast<int>(image.height * scale)), Resampling::bilinear);
      const Network& net = job_.model.metadata.network;
      const Image map =
          overlay(small, cam.explain(image, predicted), job_.model.metadata.preprocessing,
                  net.input_width, net.input_height);
      pair = html::thumbnail(small, kThumbnail, name) +
             html::thumbnail(map, kThumbnail, fmt::format("evidence for {}", classes_[predicted]));
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::interrupted) throw;
      pair = "<div class=\"tile bad\">no image</div>";
    }
    const bool right = predicted == sample.label;
    return fmt::format(
        "<figure><div class=\"pair\">{}</div><figcaption>{} <b>{}</b> {}{}<br><span "
        "class=\"dim\">{}</span></figcaption></figure>\n",
        pair, right ? "rightly" : "taken for", html::escape(classes_[predicted]),
        percent(q[predicted]),
        right ? std::string()
              : fmt::format("<br><span class=\"bad\">is {}</span> {}",
                            html::escape(classes_[sample.label]), percent(q[sample.label])),
        html::escape(name));
  }

  void data(std::string& body) const {
    const Dataset& d = job_.dataset;
    std::string content = "<div class=\"scroll\" tabindex=\"0\">" + class_chart(d) + "</div>\n";
    const size_t shown = std::min(d.classes.size(), kMostClassesShown);
    for (size_t label = 0; label < shown; ++label) {
      std::vector<size_t> mine;
      for (size_t i = 0; i < d.samples.size(); ++i)
        if (d.samples[i].label == static_cast<int>(label)) mine.push_back(i);
      content += fmt::format("<h3>{}</h3>\n<div class=\"row\">\n", html::escape(d.classes[label]));
      for (size_t k = 0; k < std::min(mine.size(), kImagesPerClass); ++k) {
        const Sample& sample = d.samples[mine[k * mine.size() / kImagesPerClass % mine.size()]];
        try {
          content += "<figure>" + html::thumbnail(load_image(sample.path), 112, d.classes[label]) +
                     "</figure>\n";
        } catch (const Error&) {
          continue;  // reported where it was to be used
        }
      }
      content += "</div>\n";
    }
    if (shown < d.classes.size())
      content +=
          fmt::format("<p class=\"dim\">And {} classes more.</p>\n", d.classes.size() - shown);
    if (!job_.changes.empty()) content += "<h3>What has changed</h3>\n" + job_.changes;
    body += html::section("data", "Data", content);
  }

  void network(std::string& body) const {
    const ModelMetadata& about = job_.model.metadata;
    const Summary summary = summarize(about.network, freeze_plan(about.network, fine_tuned(about)));
    std::vector<std::vector<std::string>> rows;
    for (const SummaryRow& row : summary.rows)
      rows.push_back({html::escape(row.name), row.kind, to_string(row.output),
                      format_count(static_cast<unsigned long long>(row.parameters)),
                      row.trainable > 0 ? "yes" : ""});
    double flops = 0;
    for (const double f : layer_flops(about.network)) flops += f;
    std::string content =
        html::table({"layer", "kind", "output (C, H, W)", "parameters", "trained"}, rows);
    content += fmt::format(
        "<p>{} parameters, {} of them trained; {:.2f} GFLOP for an image of {}x{}.</p>\n",
        format_count(static_cast<unsigned long long>(summary.parameters)),
        format_count(static_cast<unsigned long long>(summary.trainable)), flops / 1e9,
        about.network.input_height, about.network.input_width);
    body += html::section("network", "Network", content);
  }

  void configuration(std::string& body) const {
    std::string content;
    if (!job_.run.config.empty()) content += "<pre>" + html::escape(job_.run.config) + "</pre>\n";
    content += "<h3>To reproduce</h3>\n<pre>" + html::escape(job_.command) + "</pre>\n";
    body += html::section("configuration", "Configuration", content);
  }

  void card(std::string& body) const {
    const ModelMetadata& about = job_.model.metadata;
    const auto& training = about.training;
    std::vector<std::vector<std::string>> rows;
    for (const auto& [heading, text] : model_card(about))
      rows.push_back({heading, html::escape(text)});
    if (const auto accuracy = training.find("val_accuracy"),
        count = training.find("validation_images");
        job_.split != "val" && accuracy != training.end() && accuracy->is_number() &&
        count != training.end() && count->is_number_unsigned())
      rows.push_back(
          {"Validation", fmt::format("top-1 {} on {} images, {}", percent(accuracy->get<double>()),
                                     count->get<uint64_t>(), kChosenOn)});
    rows.push_back(
        {"Measured",
         fmt::format("top-1 {} on {}{} images, 95 % between {} and {}{}{}{}",
                     percent(job_.metrics.top1), job_.metrics.images, split_name(),
                     percent(job_.metrics.top1_interval.low),
                     percent(job_.metrics.top1_interval.high), trained_on(),
                     job_.split == "val" ? fmt::format("; {}", kChosenOn) : "",
                     job_.precision == Precision::bf16 ? "; computed in bfloat16" : "")});
    rows.push_back({"Limits", kModelLimits});
    body += html::section("card", "Model card", html::table({"", ""}, rows, false));
  }

  const ReportJob& job_;
  const std::vector<std::string>& classes_;
};

}  // namespace

std::string report_page(const ReportJob& job) { return Report(job).page(); }

}  // namespace graft
