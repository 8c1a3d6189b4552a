#include "report/data_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>

#include "base/fail.h"
#include "base/file.h"
#include "dataset/dataset.h"
#include "report/html.h"
#include "report/label_page.h"

namespace graft {
namespace {

constexpr int kThumbnail = 112;
constexpr size_t kMostShown = 60;  // of each kind, so that a page stays of a size that opens

std::string figure(const Dataset& dataset, size_t index, std::string_view why) {
  const Sample& sample = dataset.samples[index];
  std::string image;
  try {
    image = html::thumbnail(load_image(sample.path), kThumbnail, dataset.classes[sample.label]);
  } catch (const Error&) {
    image = "<div class=\"tile bad\">no image</div>";
  }
  const std::string split(to_string(sample.split));
  std::error_code error;
  fs::path name = fs::relative(sample.path, dataset.root, error);
  if (error || name.empty()) name = sample.path;
  return fmt::format("<figure>{}<figcaption><b>{}</b>{}{}<br>{}{}</figcaption></figure>\n", image,
                     html::escape(dataset.classes[sample.label]), split.empty() ? "" : ", ", split,
                     html::escape(printable(name)),
                     why.empty() ? "" : "<br><span class=\"bad\">" + html::escape(why) + "</span>");
}

std::string shown(size_t count) {
  return count > kMostShown
             ? fmt::format("<p class=\"dim\">The first {} of {}.</p>\n", kMostShown, count)
             : "";
}

void add(std::string& body, const Dataset& dataset, std::string_view id, std::string_view heading,
         const std::vector<Finding>& findings) {
  if (findings.empty()) return;
  std::string content = shown(findings.size()) + "<div class=\"grid\">\n";
  for (size_t k = 0; k < std::min(findings.size(), kMostShown); ++k)
    content += figure(dataset, findings[k].sample, findings[k].why);
  body += html::section(id, fmt::format("{} ({})", heading, findings.size()), content + "</div>\n");
}

void add(std::string& body, const Dataset& dataset, std::string_view id, std::string_view heading,
         const std::vector<SampleGroup>& groups) {
  if (groups.empty()) return;
  std::string content = shown(groups.size()) + "<div class=\"groups\">\n";
  for (size_t k = 0; k < std::min(groups.size(), kMostShown); ++k) {
    content += "<div class=\"row\">\n";
    for (const size_t i : groups[k]) content += figure(dataset, i, "");
    content += "</div>\n";
  }
  body += html::section(id, fmt::format("{} ({} groups)", heading, groups.size()),
                        content + "</div>\n");
}

std::string tile(size_t count, std::string_view what) {
  return fmt::format("<div class=\"tile\"><b>{}</b><span>{}</span></div>\n", count, what);
}

}  // namespace

std::string class_chart(const Dataset& dataset) {
  constexpr int kRow = 26;
  constexpr int kLabel = 150;
  constexpr int kBar = 430;
  // Okabe and Ito's palette, as in chart.cpp.
  constexpr std::array<std::pair<Split, const char*>, 4> kColours = {
      {{Split::unassigned, "#0072b2"},
       {Split::train, "#0072b2"},
       {Split::validation, "#e69f00"},
       {Split::test, "#009e73"}}};
  std::vector<std::array<size_t, 4>> counts(dataset.classes.size());
  size_t most = 1;
  for (const Sample& sample : dataset.samples) {
    auto& row = counts[sample.label];
    for (size_t k = 0; k < kColours.size(); ++k)
      if (kColours.at(k).first == sample.split) ++row.at(k);
    most = std::max(most, row[0] + row[1] + row[2] + row[3]);
  }
  const int height = kRow * (static_cast<int>(counts.size()) + 1) + 4;
  std::string svg = fmt::format(
      "<svg viewBox=\"0 0 640 {}\" width=\"640\" role=\"img\" aria-label=\"Images in each "
      "class\"><title>Images in each class</title>"
      "<g font-family=\"system-ui,sans-serif\" font-size=\"13\" fill=\"currentColor\">\n",
      height);
  int at = kLabel;
  for (size_t k = 0; k < kColours.size(); ++k) {
    if (kColours.at(k).first == Split::unassigned || !dataset.has(kColours.at(k).first)) continue;
    svg += fmt::format(
        "<rect x=\"{}\" y=\"5\" width=\"12\" height=\"12\" fill=\"{}\"/><text x=\"{}\" "
        "y=\"16\">{}</text>\n",
        at, kColours.at(k).second, at + 17, to_string(kColours.at(k).first));
    at += 80;
  }
  for (size_t label = 0; label < counts.size(); ++label) {
    const int y = kRow * (static_cast<int>(label) + 1);
    svg += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>", kLabel - 8, y + 16,
                       html::escape(dataset.classes[label].substr(0, 24)));
    double x = kLabel;
    size_t total = 0;
    for (size_t k = 0; k < kColours.size(); ++k) {
      const double width =
          static_cast<double>(counts[label].at(k)) / static_cast<double>(most) * kBar;
      if (width > 0)
        svg +=
            fmt::format("<rect x=\"{:.1f}\" y=\"{}\" width=\"{:.1f}\" height=\"18\" fill=\"{}\"/>",
                        x, y + 2, width, kColours.at(k).second);
      x += width;
      total += counts[label].at(k);
    }
    svg += fmt::format("<text x=\"{:.1f}\" y=\"{}\">{}</text>\n", x + 6, y + 16, total);
  }
  return svg + "</g></svg>\n";
}

std::string data_page(const Dataset& dataset, const Inspection& found, const LabelCheck* labels) {
  check_dataset(dataset);
  check_inspection(dataset, found);
  std::string body = fmt::format("<h1>{}</h1>\n<p class=\"dim\">What graft check found.</p>\n",
                                 html::escape(printable(dataset.root)));
  body += "<div class=\"tiles\">\n" + tile(dataset.samples.size(), "images") +
          tile(dataset.classes.size(), "classes") + tile(found.corrupt.size(), "damaged") +
          tile(found.duplicates.size(), "groups of identical files") +
          tile(found.conflicting_labels.size(), "with conflicting labels") +
          tile(found.train_test_leaks.size(), "in train and test") +
          tile(found.near_duplicates.size(), "groups that look alike") + "</div>\n";
  std::string counts = class_chart(dataset);
  counts += fmt::format("<p>The largest class has {:.1f} times the smallest one's images.</p>\n",
                        found.imbalance);
  body += html::section("classes", "Classes", counts);
  if (labels != nullptr) body += label_section(dataset, *labels);
  for (const GroupKind& kind : kGroupKinds)
    add(body, dataset, kind.key, kind.title, found.*kind.list);
  for (const FindingKind& kind : kFindingKinds)
    add(body, dataset, kind.key, kind.title, found.*kind.list);
  if (!dataset.notes.empty()) {
    std::string notes = "<ul>\n";
    for (const std::string& note : dataset.notes) notes += "<li>" + html::escape(note) + "</li>\n";
    body += html::section("notes", "Notes", notes + "</ul>\n");
  }
  return html::page("Check of " + printable(dataset.root), body);
}

}  // namespace graft
