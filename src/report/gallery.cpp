#include "report/gallery.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "image/sheet.h"
#include "report/html.h"

namespace graft {
namespace {

constexpr int kJpegQuality = 80;

std::string percent(float probability) {
  // What is not certain is not called so.
  if (probability < 1 && probability > 0.999F) return "&gt; 99.9 %";
  return fmt::format("{:.1f} %", 100 * probability);
}

std::string tile(size_t count, std::string_view what) {
  return fmt::format("<div class=\"tile\"><b>{}</b><span>{}</span></div>\n", count, what);
}

/// The folder that both lie below; empty: none.
fs::path common_folder(const fs::path& a, const fs::path& b) {
  fs::path out;
  for (auto x = a.begin(), y = b.begin(); x != a.end() && y != b.end() && *x == *y; ++x, ++y)
    out /= *x;
  return out;
}

}  // namespace

Gallery::Gallery(ResultOptions options, size_t most)
    : options_(std::move(options)),
      most_(most),
      groups_(options_.classes.size() + 1),
      counts_(groups_.size(), 0) {}

void Gallery::add(const fs::path& path, const Prediction& prediction, const Image& image) {
  const Image thumbnail = fit_inside(image, kGalleryThumbnail);
  auto shown = std::make_unique<Shown>();
  shown->label = prediction.best();
  shown->probability = prediction.probabilities.at(shown->label);
  shown->number = images_++;
  if (prediction.ranking.size() > 1) {
    shown->second = static_cast<size_t>(prediction.ranking[1]);
    shown->second_probability = prediction.probabilities.at(shown->second);
  }
  shown->path = path;
  shown->jpeg = html::base64(encode_jpeg(thumbnail, kJpegQuality));
  shown->width = thumbnail.width;
  shown->height = thumbnail.height;
  const size_t index = is_unsure(shown->probability) ? groups_.size() - 1 : shown->label;
  ++counts_.at(index);
  groups_.at(index).insert(std::move(shown));
  if (++shown_ > most_) leave_one_out();
}

void Gallery::leave_one_out() {
  Group& largest =
      *std::max_element(groups_.begin(), groups_.end(),
                        [](const auto& a, const auto& b) { return a.size() < b.size(); });
  largest.erase(std::next(largest.begin(), static_cast<std::ptrdiff_t>(largest.size() / 2)));
  --shown_;
}

void Gallery::add_error(const std::string& path, const std::string& why) {
  errors_.emplace_back(path, why);
}

std::string Gallery::figure(const Shown& shown, const fs::path& above, bool labelled) const {
  const std::string label = html::escape(printable(options_.classes[shown.label]));
  const fs::path name = above.empty() ? shown.path : shown.path.lexically_relative(above);
  std::string second;
  if (shown.second_probability >= 0.005F)
    second = fmt::format("<br><span class=\"dim\">{} {}</span>",
                         html::escape(printable(options_.classes[shown.second])),
                         percent(shown.second_probability));
  return fmt::format(
      "<figure><img src=\"data:image/jpeg;base64,{}\" width=\"{}\" height=\"{}\" loading=\"lazy\" "
      "decoding=\"async\" alt=\"{} {}\"><figcaption>{}<b>{}</b>{}<br><span title=\"{}\">{}</span>"
      "</figcaption></figure>\n",
      shown.jpeg, shown.width, shown.height, label, percent(shown.probability),
      labelled ? label + " " : "", percent(shown.probability), second,
      html::escape(printable(shown.path)), html::escape(printable(name)));
}

std::string Gallery::group(size_t index, const std::string& heading, const fs::path& above,
                           std::string& links) const {
  if (counts_[index] == 0) return {};
  const bool unsure = index + 1 == groups_.size();
  const std::string id = unsure ? "unsure" : fmt::format("class-{}", index);
  links += fmt::format("<a href=\"#{}\">{} {}</a>\n", id, unsure ? "unsure" : html::escape(heading),
                       counts_[index]);
  std::string content;
  const Group& group = groups_[index];
  if (const size_t left_out = counts_[index] - group.size(); left_out > 0)
    content += fmt::format(
        "<p class=\"dim\">The surest and the least sure ones; {} between them are left out, so "
        "that "
        "the page opens.</p>\n",
        left_out);
  content += "<div class=\"grid\">\n";
  for (const std::unique_ptr<Shown>& shown : group) content += figure(*shown, above, unsure);
  return html::section(id, fmt::format("{} ({})", heading, counts_[index]), content + "</div>\n");
}

std::string Gallery::page() const {
  fs::path above;
  bool first = true;
  for (const Group& group : groups_)
    for (const std::unique_ptr<Shown>& shown : group) {
      const fs::path folder = shown->path.parent_path();
      above = std::exchange(first, false) ? folder : common_folder(above, folder);
    }
  const size_t unsure = groups_.size() - 1;
  std::string links;
  std::string sections;
  sections +=
      group(unsure, fmt::format("unsure: below {:g} %", 100 * options_.unsure), above, links);
  for (size_t label = 0; label < unsure; ++label)
    sections += group(label, printable(options_.classes[label]), above, links);
  if (!errors_.empty()) {
    constexpr size_t kMostErrors = 1000;
    std::vector<std::vector<std::string>> rows;
    for (size_t i = 0; i < std::min(errors_.size(), kMostErrors); ++i)
      rows.push_back(
          {html::escape(printable(errors_[i].first)), html::escape(printable(errors_[i].second))});
    if (errors_.size() > kMostErrors)
      rows.push_back({fmt::format("… and {} more", errors_.size() - kMostErrors), ""});
    links += fmt::format("<a href=\"#not-read\">not read {}</a>\n", errors_.size());
    sections += html::section("not-read", fmt::format("not read ({})", errors_.size()),
                              html::table({"file", "why"}, rows, false));
  }
  const auto seen =
      std::count_if(counts_.begin(), counts_.end() - 1, [](size_t n) { return n > 0; });
  std::string body = fmt::format("<h1>{}</h1>\n", html::escape(options_.title));
  if (!above.empty())
    body += fmt::format("<p class=\"dim\">Images below {}</p>\n", html::escape(printable(above)));
  body += "<div class=\"tiles\">\n" + tile(images_, images_ == 1 ? "image" : "images") +
          tile(static_cast<size_t>(seen), seen == 1 ? "class seen" : "classes seen");
  if (options_.unsure > 0) body += tile(counts_[unsure], "unsure");
  if (!errors_.empty()) body += tile(errors_.size(), "not read");
  body += "</div>\n<nav>\n" + links + "</nav>\n";
  return html::page(options_.title, body + sections);
}

}  // namespace graft
