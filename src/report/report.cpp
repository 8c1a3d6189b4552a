#include "report/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "base/progress.h"
#include "dataset/suffix_counts.h"
#include "graft/run_files.h"
#include "report/chart.h"
#include "report/confusion.h"
#include "report/data_page.h"
#include "report/figures.h"
#include "report/html.h"
#include "report/kept_epoch.h"
#include "report/label_page.h"
#include "report/model_card.h"
#include "report/photos.h"

namespace graft {
namespace {

constexpr int kSide = 112;  // of the data's photos
constexpr size_t kImagesPerClass = 4;
constexpr size_t kClassesOpen = 8;  // whose photos are seen at once
constexpr size_t kMostClassesShown = 30;
constexpr size_t kMostSkippedShown = 50;
constexpr size_t kWideMatrix = 15;  // classes from which on the matrix needs the page's width
constexpr std::string_view kChosenOn =
    "by which the epoch was judged and the probabilities were calibrated: probably better than on "
    "images that played no part";

std::string percent(double share) { return fmt::format("{:.1f} %", share * 100); }

/// "7.2 s", "3 min 12 s", "1 h 2 min".
std::string spelled(double seconds) {
  constexpr double kMinute = 60;
  constexpr double kHour = 3600;
  if (seconds < 10) return fmt::format("{:.1f} s", seconds);
  if (seconds < kMinute) return fmt::format("{:.0f} s", seconds);
  const auto whole = static_cast<int64_t>(std::llround(seconds));
  if (seconds < kHour) return fmt::format("{} min {} s", whole / 60, whole % 60);
  return fmt::format("{} h {} min", whole / 3600, whole / 60 % 60);
}

std::string columns(const std::string& left, const std::string& right) {
  return "<div class=\"columns\">\n<div>\n" + left + "</div>\n<div>\n" + right + "</div>\n</div>\n";
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
    std::string body = fmt::format("<header>\n<h1>{}</h1>\n<p class=\"dim\">{}</p>\n",
                                   html::escape(title), html::escape(subtitle()));
    const size_t times_stand_here = body.size();
    body += "</header>\n<nav aria-label=\"Sections\">";
    for (const auto& [id, heading] : {std::pair{"curves", "Curves"},
                                      {"classes", "Classes"},
                                      {"mistakes", "Mistakes"},
                                      {"data", "Data"},
                                      {"label_errors", "Labels"},
                                      {"network", "Network"},
                                      {"calibration", "Calibration"},
                                      {"card", "Model card"}})
      if ((std::string_view(id) != "curves" || !job_.run.history.empty()) &&
          (std::string_view(id) != "label_errors" || job_.labels != nullptr))
        body += fmt::format("<a href=\"#{}\">{}</a>", id, heading);
    body += "</nav>\n<div class=\"tiles\">\n";
    body += html::tile(percent(m.top1),
                       fmt::format("top-1, 95 % in {:.1f} – {:.1f}", m.top1_interval.low * 100,
                                   m.top1_interval.high * 100));
    if (classes_.size() > 5) body += html::tile(percent(m.top5), "top-5");
    body += html::tile(fmt::format("{:.3f}", m.macro.f1), "macro F1");
    if (m.macro.auc) body += html::tile(fmt::format("{:.4f}", *m.macro.auc), "macro ROC AUC");
    body += html::tile(fmt::format("{:.4f}", m.loss), "loss");
    body += html::tile(fmt::format("{:.4f}", m.ece), "ECE");
    body += "</div>\n";
    curves(body);
    per_class(body);
    body += html::section(
        "mistakes", "Mistakes",
        photos_section({job_.model, job_.predictions, job_.dataset.root, job_.context}));
    data(body);
    if (job_.labels != nullptr) body += label_section(job_.dataset, *job_.labels);
    body += columns(network(), configuration());
    body += columns(calibration(), card());
    body.insert(times_stand_here, times());
    return html::page(title, body);
  }

 private:
  [[nodiscard]] std::string split_name() const {
    return job_.split == "val" ? " validation" : job_.split == "all" ? "" : " " + job_.split;
  }

  [[nodiscard]] std::string subtitle() const {
    return fmt::format("{}{} image{}, {} classes{}", job_.metrics.images, split_name(),
                       job_.metrics.images == 1 ? "" : "s", classes_.size(), trained_on());
  }

  /// The run's name, when it was made, and where the time went.
  [[nodiscard]] std::string times() const {
    std::vector<std::pair<std::string, std::string>> rows;
    std::error_code error;
    if (!job_.run.config.empty())
      rows.emplace_back(
          "Run",
          html::copyable_path(job_.run.folder,
                              printable(fs::weakly_canonical(job_.run.folder, error).filename())));
    if (job_.run.times) {
      RunTimes times = *job_.run.times;
      // In a run's own report the time for it is not over.
      double& report = times.seconds[static_cast<size_t>(TrainStage::report)];
      if (job_.of_run)
        report += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
      std::string text = (times.whole ? "" : "at least ") + spelled(times.total()) + ": ";
      for (size_t k = 0; k < kTrainStages; ++k) {
        const auto stage = static_cast<TrainStage>(k);
        text += fmt::format("{}{} {}", k > 0 ? ", " : "", to_string(stage),
                            spelled(times.seconds.at(k)));
        if (stage == TrainStage::training)
          text += fmt::format(" ({} epochs)", job_.run.history.size());
      }
      std::string started = times.started.substr(0, 16);
      if (started.size() > 10) started[10] = ' ';
      rows.emplace_back("Started", html::escape(started) + " UTC");
      rows.emplace_back("Time", html::escape(text));
    }
    return rows.empty() ? "" : html::facts(rows);
  }

  [[nodiscard]] std::string trained_on() const {
    if (job_.trained_on == 0) return "";
    return fmt::format(
        "; {} of them {} trained on, by this run or one that it went on from, so that "
        "unseen images will do worse",
        job_.trained_on, job_.trained_on == 1 ? "was" : "were");
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
    content += "</div>\n" + kept() + losses();
    body += html::section("curves", "Curves", content);
  }

  /// Why the epoch that was kept is not the highest point of the curve.
  [[nodiscard]] std::string kept() const {
    const int best = job_.run.best_epoch();
    const std::string why = why_kept(job_.run.history, best);
    if (why.empty()) return "";
    return fmt::format(
        "<p>Kept was epoch {}, {}: runs whose learning rate falls to nothing are best at their "
        "end, and so small a difference on these images may well be chance.</p>\n",
        best, html::escape(why));
  }

  /// Why the two losses differ.
  [[nodiscard]] std::string losses() const {
    const ModelMetadata& about = job_.model.metadata;
    const nlohmann::json& training = about.training;
    std::vector<std::string> parts;
    if (const auto at = training.find("label_smoothing");
        at != training.end() && at->is_number() && at->get<double>() > 0)
      parts.push_back(fmt::format("label smoothing of {:g}", at->get<double>()));
    for (const Layer& layer : about.network.layers)
      if (layer.kind == LayerKind::dropout) {
        parts.emplace_back("dropout");
        break;
      }
    if (const auto at = training.find("augment"); at != training.end() && at->is_string())
      if (const auto words = at->get<std::string>(); !words.empty() && words != "none")
        parts.push_back(fmt::format("augmented images ({})", words));
    std::string list;
    for (size_t i = 0; i < parts.size(); ++i)
      list += (i == 0 ? "" : i + 1 == parts.size() ? " and " : ", ") + parts[i];
    return fmt::format(
        "<p class=\"dim\">The two losses are not of the same kind. The training loss is the mean "
        "over "
        "an epoch in which the weights change{}. The validation loss is that of the weights at the "
        "epoch's end, on images as they are, without any of this: it may well be the lower one. "
        "Both "
        "are from before calibration. The learning rate is that of each epoch's last step.</p>\n",
        list.empty() ? "" : html::escape(", with " + list + " in it"));
  }

  void per_class(std::string& body) const {
    html::Table table{
        "figures of each class",
        {{"class", false}, {"precision"}, {"recall"}, {"F1"}, {"ROC AUC"}, {"images", true, true}},
        {}};
    const auto row = [](const std::string& name, const ClassMetrics& m) {
      return html::Row{{name, fmt::format("{:.3f}", m.precision), fmt::format("{:.3f}", m.recall),
                        fmt::format("{:.3f}", m.f1), m.auc ? fmt::format("{:.4f}", *m.auc) : "–",
                        std::to_string(m.support)}};
    };
    std::vector<size_t> order(classes_.size());
    std::iota(order.begin(), order.end(), size_t{0});
    const auto& metrics = job_.metrics.per_class;
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return metrics[a].f1 < metrics[b].f1; });
    for (const size_t c : order) table.rows.push_back(row(html::escape(classes_[c]), metrics[c]));
    table.footer = {row("<i>macro average</i>", job_.metrics.macro),
                    row("<i>weighted average</i>", job_.metrics.weighted)};
    const std::string figures = "<h3>Figures, the worst class first</h3>\n" + html::table(table);
    const std::string matrix =
        "<h3>Confusion matrix</h3>\n" + confusion_table(job_.metrics, classes_);
    const std::string list = confusions_list(job_.metrics, classes_);
    body += html::section("classes", "Classes",
                          classes_.size() > kWideMatrix ? matrix + columns(figures, list)
                                                        : columns(figures + list, matrix));
  }

  [[nodiscard]] std::string calibration() const {
    std::string content = reliability_svg(job_.metrics);
    content +=
        "<p>Of the images classified with a confidence of 0.8, eight in ten should be right: bars "
        "that end on the dashed line. Paler bars stand for fewer images.";
    const nlohmann::json& training = job_.model.metadata.training;
    if (training.contains("temperature"))
      content += fmt::format(
          " The logits were divided by a temperature of {:.3f}, fitted on the validation images.",
          training["temperature"].get<double>());
    return html::section("calibration", "Calibration", content + "</p>\n");
  }

  void data(std::string& body) const {
    const Dataset& d = job_.dataset;
    std::string content = class_chart(d);
    std::string photos;
    const size_t shown = std::min(d.classes.size(), kMostClassesShown);
    for (size_t label = 0; label < shown; ++label) {
      std::vector<size_t> mine;
      for (size_t i = 0; i < d.samples.size(); ++i)
        if (d.samples[i].label == static_cast<int>(label)) mine.push_back(i);
      if (label == kClassesOpen)
        photos +=
            fmt::format("<details>\n<summary>{} more classes</summary>\n", shown - kClassesOpen);
      photos +=
          fmt::format("<h3>{}</h3>\n<div class=\"row zooms\">\n", html::escape(d.classes[label]));
      for (size_t k = 0; k < std::min(mine.size(), kImagesPerClass); ++k) {
        const Sample& sample = d.samples[mine[k * mine.size() / kImagesPerClass % mine.size()]];
        try {
          photos += html::figure(html::thumbnail(load_image(sample.path), kSide,
                                                 fmt::format("{}: {}", d.classes[label],
                                                             printable(sample.path.filename()))),
                                 "");
        } catch (const Error&) {
          continue;  // reported where it was to be used
        }
      }
      photos += "</div>\n";
    }
    if (shown > kClassesOpen) photos += "</details>\n";
    if (shown < d.classes.size())
      photos +=
          fmt::format("<p class=\"dim\">And {} classes more.</p>\n", d.classes.size() - shown);
    content += corrected() + not_used();
    if (!job_.changes.empty()) content += "<h3>What has changed</h3>\n" + job_.changes;
    body += html::section("data", "Data", columns(content, photos));
  }

  /// What a person decided on labels.
  [[nodiscard]] std::string corrected() const {
    constexpr std::string_view kNote = "`corrections` ";
    for (const std::string& note : job_.dataset.notes)
      if (!job_.dataset.corrections.empty() && note.starts_with(kNote))
        return fmt::format("<p>Corrected by a person's decisions on labels, {}.</p>\n",
                           html::escape(note.substr(kNote.size())));
    std::error_code error;
    if (!fs::exists(job_.run.folder / run_files::kCorrections, error)) return "";
    return fmt::format(
        "<p>The model was trained on labels that a person had corrected ({} in its run's "
        "folder); those of these images are as they are found.</p>\n",
        run_files::kCorrections);
  }

  /// Images that took no part, and files of kinds that are not read.
  [[nodiscard]] std::string not_used() const {
    std::vector<std::string> lines;
    if (job_.of_run && job_.run.metrics.is_object())
      lines = job_.run.metrics.value("skipped", lines);
    SuffixCounts kinds;
    for (const auto& [label, counts] : job_.dataset.unread)
      kinds = merged(std::move(kinds), counts);
    if (lines.empty() && kinds.empty()) return "";
    std::string out = "<h3>Not used</h3>\n";
    if (!lines.empty()) {
      out += fmt::format("<details>\n<summary>{} image{} could not be read</summary>\n<ul>\n",
                         lines.size(), lines.size() == 1 ? "" : "s");
      for (size_t k = 0; k < std::min(lines.size(), kMostSkippedShown); ++k)
        out += fmt::format("<li>{}</li>\n", html::escape(lines[k]));
      if (lines.size() > kMostSkippedShown)
        out += fmt::format("<li>and {} more: {} has all</li>\n", lines.size() - kMostSkippedShown,
                           run_files::kSkipped);
      out += "</ul>\n</details>\n";
    }
    if (!kinds.empty())
      out += fmt::format("<p>Files of kinds that are not read: {}.</p>\n",
                         html::escape(suffixes(kinds)));
    return out;
  }

  [[nodiscard]] std::string network() const {
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
    return html::section("network", "Network", content);
  }

  [[nodiscard]] std::string configuration() const {
    std::string content;
    if (!job_.run.config.empty()) content += "<pre>" + html::escape(job_.run.config) + "</pre>\n";
    content += "<h3>To reproduce</h3>\n<pre>" + html::escape(job_.command) + "</pre>\n";
    return html::section("configuration", "Configuration", content);
  }

  [[nodiscard]] std::string card() const {
    const ModelMetadata& about = job_.model.metadata;
    const auto& training = about.training;
    std::vector<std::pair<std::string, std::string>> rows;
    for (const auto& [heading, text] : model_card(about))
      rows.emplace_back(heading, html::escape(text));
    if (const auto accuracy = training.find("val_accuracy"),
        count = training.find("validation_images");
        job_.split != "val" && accuracy != training.end() && accuracy->is_number() &&
        count != training.end() && count->is_number_unsigned())
      rows.emplace_back("Validation",
                        fmt::format("top-1 {} on {} images, {}", percent(accuracy->get<double>()),
                                    count->get<uint64_t>(), kChosenOn));
    rows.emplace_back(
        "Measured",
        fmt::format("top-1 {} on {}{} image{}, 95 % between {} and {}{}{}{}",
                    percent(job_.metrics.top1), job_.metrics.images, split_name(),
                    job_.metrics.images == 1 ? "" : "s", percent(job_.metrics.top1_interval.low),
                    percent(job_.metrics.top1_interval.high), trained_on(),
                    job_.split == "val" ? fmt::format("; {}", kChosenOn) : "",
                    job_.precision == Precision::bf16 ? "; computed in bfloat16" : ""));
    rows.emplace_back("Limits", kModelLimits);
    return html::section("card", "Model card", html::facts(rows));
  }

  const ReportJob& job_;
  const std::vector<std::string>& classes_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace

std::string report_page(const ReportJob& job) { return Report(job).page(); }

}  // namespace graft
