#include "report/photos.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <numeric>
#include <set>

#include "base/fail.h"
#include "base/file.h"
#include "base/progress.h"
#include "base/threads.h"
#include "model/gradcam.h"
#include "report/html.h"
#include "report/metrics.h"

namespace graft {
namespace {

constexpr int kExplainedSide = 256;
constexpr int kSide = 144;
constexpr size_t kWorst = 12;
constexpr size_t kUnsure = 12;
// Of a cell of the confusion matrix.
constexpr size_t kOfMistake = 8;
constexpr size_t kOfRight = 3;
constexpr size_t kMostPhotos = 240;  // some 2 MB
// So that photos of many megapixels do not take minutes: some 20 s of one processor.
constexpr int64_t kMostPixels = 2'000'000'000;
constexpr size_t kMostRows = 1000;

class Photos {
 public:
  explicit Photos(const PhotosJob& job) : job_(job), p_(job.predictions) {
    for (size_t i = 0; i < p_.samples.size(); ++i) {
      const std::vector<double> q = softmax(p_.row(i));
      answers_.push_back({i, p_.samples[i].label, p_.predicted(i), q[p_.predicted(i)],
                          q[p_.samples[i].label], cross_entropy(p_.row(i), p_.samples[i].label)});
      if (!answers_.back().right()) mistakes_.push_back(i);
    }
    std::stable_sort(mistakes_.begin(), mistakes_.end(),
                     [&](size_t a, size_t b) { return answers_[a].loss > answers_[b].loss; });
  }

  std::string section() {
    std::vector<size_t> worst(
        mistakes_.begin(),
        mistakes_.begin() + static_cast<std::ptrdiff_t>(std::min(mistakes_.size(), kWorst)));
    shown_.insert(worst.begin(), worst.end());
    std::vector<size_t> unsure = least_sure();
    shown_.insert(unsure.begin(), unsure.end());
    const std::vector<size_t> more = of_each_cell();

    GradCam cam(job_.model, "", job_.context.thread_count());
    Progress progress(job_.context, "report", worst.size() + unsure.size() + more.size(), "images");
    std::string out = fmt::format(
        "<p>{} of {} images were classified wrongly. Beside each photo: where the evidence for the "
        "predicted class lies (Grad-CAM at {}; blue none, red most).</p>\n",
        mistakes_.size(), p_.samples.size(), html::escape(cam.layer()));
    out += filter();
    if (!worst.empty())
      out += explained("Worst mistakes: the label's probability the lowest", worst, cam, progress);
    if (!unsure.empty())
      out += explained(worst.empty() ? "Least sure" : "Least sure of the others", unsure, cam,
                       progress);
    out += cells(more, progress);
    progress.finish();
    return out + mistakes_table();
  }

 private:
  struct Answer {
    size_t index = 0;
    int label = 0;
    int predicted = 0;
    double probability = 0;  // of the predicted class
    double of_label = 0;
    double loss = 0;
    [[nodiscard]] bool right() const { return label == predicted; }
  };

  [[nodiscard]] const std::string& name(int label) const {
    return p_.classes[static_cast<size_t>(label)];
  }

  /// Without the images that are shown already.
  [[nodiscard]] std::vector<size_t> least_sure() const {
    std::vector<size_t> order;
    for (size_t i = 0; i < answers_.size(); ++i)
      if (!shown_.contains(i)) order.push_back(i);
    const size_t count = std::min(order.size(), kUnsure);
    std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(count),
                      order.end(), [&](size_t a, size_t b) {
                        return std::pair(answers_[a].probability, a) <
                               std::pair(answers_[b].probability, b);
                      });
    order.resize(count);
    return order;
  }

  /// A few images of every cell: first one of each, then another, until there are enough. In the
  /// order of the cells, the largest mistakes first, right answers last.
  [[nodiscard]] std::vector<size_t> of_each_cell() const {
    std::map<std::pair<int, int>, std::vector<size_t>> wrong;
    std::map<int, std::vector<size_t>> right;
    for (const size_t i : mistakes_)
      if (!shown_.contains(i)) wrong[{answers_[i].label, answers_[i].predicted}].push_back(i);
    for (const Answer& a : answers_)
      if (a.right() && !shown_.contains(a.index)) right[a.label].push_back(a.index);
    std::vector<std::vector<size_t>> all;
    all.reserve(wrong.size() + right.size());
    for (auto& [cell, images] : wrong) all.push_back(std::move(images));
    std::stable_sort(all.begin(), all.end(),
                     [](const auto& a, const auto& b) { return a.size() > b.size(); });
    for (auto& images : all) images.resize(std::min(images.size(), kOfMistake));
    for (auto& [label, images] : right) {
      std::stable_sort(images.begin(), images.end(), [&](size_t a, size_t b) {
        return answers_[a].probability < answers_[b].probability;
      });
      images.resize(std::min(images.size(), kOfRight));
      all.push_back(std::move(images));
    }
    std::vector<std::vector<size_t>> taken(all.size());
    size_t count = 0;
    for (size_t k = 0; k < kOfMistake; ++k)
      for (size_t cell = 0; cell < all.size() && count < kMostPhotos; ++cell)
        if (k < all[cell].size()) {
          taken[cell].push_back(all[cell][k]);
          ++count;
        }
    std::vector<size_t> out;
    for (const auto& images : taken) out.insert(out.end(), images.begin(), images.end());
    return out;
  }

  /// Of one label, of one prediction: for the script, which shows it.
  [[nodiscard]] std::string filter() const {
    const auto select = [&](std::string_view key, std::string_view words) {
      std::string out =
          fmt::format("<label>{} <select name=\"{}\"><option value=\"\">all</option>", words, key);
      for (size_t c = 0; c < p_.classes.size(); ++c)
        out += fmt::format("<option value=\"{}\">{}</option>", c, html::escape(p_.classes[c]));
      return out + "</select></label>\n";
    };
    return "<form class=\"filter\" id=\"filter\" hidden>\n" + select("label", "label") +
           select("predicted", "classified as") +
           "<button type=\"reset\">Show all</button>\n<output></output>\n</form>\n";
  }

  [[nodiscard]] std::string attributes(const Answer& a) const {
    return fmt::format("data-label=\"{}\" data-predicted=\"{}\"", a.label, a.predicted);
  }

  [[nodiscard]] std::string words(const Answer& a) const {
    return answer_in_words(name(a.label), name(a.predicted), a.probability);
  }

  [[nodiscard]] std::string figure(const Answer& a, const std::string& images) const {
    return html::figure(images,
                        answer_caption(name(a.label), name(a.predicted), a.probability,
                                       p_.samples[a.index].path, job_.root, a.of_label),
                        attributes(a));
  }

  std::string explained(std::string_view heading, const std::vector<size_t>& chosen, GradCam& cam,
                        Progress& progress) {
    std::string out = fmt::format(
        "<div class=\"group\">\n<h3>{}</h3>\n<div class=\"grid pairs zooms\">\n", heading);
    for (const size_t i : chosen) {
      job_.context.check_stop();
      const Answer& a = answers_[i];
      std::string pair;
      try {
        const Image image = load_image(p_.samples[i].path);
        const double scale = std::min(
            1.0, static_cast<double>(kExplainedSide) / std::max(image.width, image.height));
        const Image small =
            resize(image, std::max(1, static_cast<int>(image.width * scale)),
                   std::max(1, static_cast<int>(image.height * scale)), Resampling::bilinear);
        const ModelMetadata& about = job_.model.metadata;
        const Image map = overlay(small, cam.explain(image, a.predicted), about.preprocessing,
                                  about.network.input_width, about.network.input_height);
        pair = html::thumbnail(small, kExplainedSide, words(a)) +
               html::thumbnail(map, kExplainedSide,
                               fmt::format("evidence for {} in this photo", name(a.predicted)));
      } catch (const Error& error) {
        if (error.kind() == ErrorKind::interrupted) throw;
      }
      out += figure(a, pair);
      progress.update(++done_);
    }
    return out + "</div>\n</div>\n";
  }

  std::string cells(const std::vector<size_t>& chosen, Progress& progress) {
    if (chosen.empty()) return "";
    std::string out;
    size_t shown = 0;
    size_t shown_mistakes = 0;
    std::atomic<int64_t> pixels = 0;
    ThreadPool pool(job_.context.thread_count());
    constexpr size_t kChunk = 16;  // after each it is seen whether the time is used up
    for (size_t from = 0; from < chosen.size() && pixels < kMostPixels; from += kChunk) {
      job_.context.check_stop();
      const size_t count = std::min(kChunk, chosen.size() - from);
      std::vector<std::string> images(count);
      pool.parallel_for(count, [&](size_t k) {
        const Answer& a = answers_[chosen[from + k]];
        try {
          const Image image = load_image(p_.samples[a.index].path);
          pixels += int64_t{image.width} * image.height;
          images[k] = html::thumbnail(image, kSide, words(a));
        } catch (const Error&) {
          return;  // a tile says that there is none
        }
      });
      for (size_t k = 0; k < count; ++k) {
        const Answer& a = answers_[chosen[from + k]];
        out += figure(a, images[k]);
        shown_mistakes += a.right() ? 0 : 1;
      }
      shown += count;
      progress.update(done_ += count);
    }
    const size_t mistakes = mistakes_.size() - std::min(mistakes_.size(), kWorst);
    return fmt::format(
        "<div class=\"group\">\n<details>\n<summary>{} more photos: of every cell of the confusion "
        "matrix</summary>\n<p class=\"dim\">At most {} photos of a kind of mistake and {} of each "
        "class's right answers, the least sure ones; {} of {} further mistakes.</p>\n"
        "<div class=\"grid zooms\">\n{}</div>\n</details>\n</div>\n",
        shown, kOfMistake, kOfRight, shown_mistakes, mistakes, out);
  }

  [[nodiscard]] std::string mistakes_table() const {
    if (mistakes_.empty()) return "";
    html::Table table{"mistakes",
                      {{"photo", false},
                       {"label", false},
                       {"classified as", false},
                       {"probability", true, true},
                       {"of the label", true}},
                      {}};
    for (size_t k = 0; k < std::min(mistakes_.size(), kMostRows); ++k) {
      const Answer& a = answers_[mistakes_[k]];
      const fs::path& path = p_.samples[a.index].path;
      table.rows.push_back(
          {{html::copyable_path(path, path_below(path, job_.root)), html::escape(name(a.label)),
            html::escape(name(a.predicted)), fmt::format("{:.1f} %", a.probability * 100),
            fmt::format("{:.1f} %", a.of_label * 100)},
           attributes(a)});
    }
    std::string out =
        "<div class=\"group\">\n<h3>All mistakes, the worst first</h3>\n" + html::table(table);
    if (mistakes_.size() > kMostRows)
      out += fmt::format(
          "<p class=\"dim\">The first {} of {}; predictions.csv, or <code>graft evaluate "
          "--predictions</code>, has all.</p>\n",
          kMostRows, mistakes_.size());
    return out + "</div>\n";
  }

  const PhotosJob& job_;
  const Predictions& p_;
  std::vector<Answer> answers_;   // of every image
  std::vector<size_t> mistakes_;  // the worst first
  std::set<size_t> shown_;
  size_t done_ = 0;
};

}  // namespace

std::string answer_in_words(const std::string& label, const std::string& predicted,
                            double probability) {
  return fmt::format("{}, classified as {}, {:.0f} %", label, predicted, probability * 100);
}

std::string answer_caption(const std::string& label, const std::string& predicted,
                           double probability, const std::filesystem::path& path,
                           const std::filesystem::path& root, std::optional<double> of_label) {
  std::string text =
      label == predicted
          ? fmt::format("<b>{}</b>, correctly, {:.1f}&nbsp;%", html::escape(label),
                        probability * 100)
          : fmt::format("<b>{}</b>, classified as <b class=\"bad\">{}</b>, {:.1f}&nbsp;%",
                        html::escape(label), html::escape(predicted), probability * 100);
  if (of_label && label != predicted)
    text += fmt::format(" (of the label {:.1f}&nbsp;%)", *of_label * 100);
  return text + "<br>" + html::copyable_path(path, path_below(path, root));
}

std::string path_below(const std::filesystem::path& path, const std::filesystem::path& root) {
  const fs::path relative = path.lexically_relative(root);
  return printable(relative.empty() || *relative.begin() == ".." ? path : relative);
}

std::string photos_section(const PhotosJob& job) { return Photos(job).section(); }

}  // namespace graft
