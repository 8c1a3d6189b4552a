#include "report/label_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "base/fail.h"
#include "base/file.h"
#include "base/progress.h"
#include "dataset/review.h"
#include "report/html.h"

namespace graft {
namespace {

constexpr int kThumbnail = 176;
constexpr size_t kMostShown = 200;  // about 1.5 MB
constexpr size_t kMostPairs = 8;

std::string name_of(const Dataset& dataset, int label) {
  return html::escape(dataset.classes.at(static_cast<size_t>(label)));
}

std::string percent(double probability) {
  // What is not impossible is not called so.
  if (probability < 0.0005) return "&lt;&nbsp;0.1&nbsp;%";
  return fmt::format("{:.{}f}&nbsp;%", probability * 100, probability < 0.095 ? 1 : 0);
}

std::string figure(const Dataset& dataset, const LabelDoubt& doubt) {
  const Sample& sample = dataset.samples.at(doubt.sample);
  const std::string label = dataset.classes.at(static_cast<size_t>(sample.label));
  std::string image;
  try {
    image = html::thumbnail(load_image(sample.path), kThumbnail, "labelled " + label);
  } catch (const Error&) {
    image.clear();  // a tile says that there is none
  }
  return html::figure(
      image,
      fmt::format("labelled <span class=\"bad\">{}</span> ({}), probably <b>{}</b> ({})<br>{}",
                  html::escape(label), percent(doubt.label_confidence),
                  name_of(dataset, doubt.suggestion), percent(doubt.confidence),
                  html::copyable_path(sample.path,
                                      printable(fs::path(review_path(dataset, sample.path))))));
}

std::string pairs_table(const Dataset& dataset, const LabelCheck& found) {
  std::vector<std::vector<std::string>> rows;
  for (size_t k = 0; k < std::min(found.pairs.size(), kMostPairs); ++k) {
    const LabelPair& pair = found.pairs[k];
    rows.push_back({name_of(dataset, pair.suggestion), name_of(dataset, pair.label),
                    fmt::format("{:.0f}", pair.images)});
  }
  return html::table({"probably", "labelled", "images, about"}, rows, false);
}

}  // namespace

std::string label_section(const Dataset& dataset, const LabelCheck& found) {
  std::string content;
  for (const std::string& note : found.notes)
    content += "<p class=\"dim\">" + html::escape(note) + "</p>\n";
  if (found.doubtful == 0) {
    content +=
        fmt::format("<p>Of {} labels none looks wrong.</p>\n", format_count(found.ranking.size()));
    return html::section("label_errors", "Labels that are probably wrong (0)", content);
  }
  content += fmt::format(
      "<p>By estimate {:.1f} % of {} labels are wrong; with few images (some dozens of a class) "
      "the estimate is too high. Each image was judged by classifiers that had not seen it, on "
      "features of {}. The most doubtful come first: by the odds of the label against the "
      "suggestion, whose probabilities stand below each image. An image that shows two classes at "
      "once is among them as well.</p>\n"
      "<p>A person decides, in <code>review.csv</code>, which has a line for each of them: "
      "<code>graft check --review review.csv</code> writes it, and a run with "
      "<code>--check-labels</code> in its folder. <code>graft train --corrections "
      "review.csv</code> "
      "then trains with what was decided.</p>\n",
      found.share * 100, format_count(found.ranking.size()), html::escape(found.features));
  if (!found.pairs.empty()) content += pairs_table(dataset, found);
  if (found.doubtful > kMostShown)
    content +=
        fmt::format("<p class=\"dim\">The first {} of {}.</p>\n", kMostShown, found.doubtful);
  content +=
      "<div class=\"grid zooms\" "
      "style=\"grid-template-columns:repeat(auto-fill,minmax(9.5rem,1fr));margin-top:1rem\">\n";
  for (size_t k = 0; k < std::min(found.doubtful, kMostShown); ++k)
    content += figure(dataset, found.ranking.at(k));
  return html::section("label_errors",
                       fmt::format("Labels that are probably wrong ({})", found.doubtful),
                       content + "</div>\n");
}

}  // namespace graft
