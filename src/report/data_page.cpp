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
#include "report/photos.h"

namespace graft {
namespace {

constexpr int kThumbnail = 112;
constexpr size_t kMostShown = 60;  // of each kind, so that a page stays of a size that opens

std::string figure(const Dataset& dataset, size_t index, std::string_view why) {
  const Sample& sample = dataset.samples[index];
  const std::string& label = dataset.classes[sample.label];
  const std::string name = path_below(sample.path, dataset.root);
  std::string image;
  try {
    image = html::thumbnail(load_image(sample.path), kThumbnail, label + ": " + name);
  } catch (const Error&) {
    image.clear();  // a tile says that there is none
  }
  const std::string split(to_string(sample.split));
  return html::figure(
      image,
      fmt::format("<b>{}</b>{}{}<br>{}{}", html::escape(label), split.empty() ? "" : ", ", split,
                  html::copyable_path(sample.path, name),
                  why.empty() ? "" : "<br><span class=\"bad\">" + html::escape(why) + "</span>"));
}

std::string shown(size_t count) {
  return count > kMostShown
             ? fmt::format("<p class=\"dim\">The first {} of {}.</p>\n", kMostShown, count)
             : "";
}

void add(std::string& body, const Dataset& dataset, std::string_view id, std::string_view heading,
         const std::vector<Finding>& findings) {
  if (findings.empty()) return;
  std::string content = shown(findings.size()) + "<div class=\"grid zooms\">\n";
  for (size_t k = 0; k < std::min(findings.size(), kMostShown); ++k)
    content += figure(dataset, findings[k].sample, findings[k].why);
  body += html::section(id, fmt::format("{} ({})", heading, findings.size()), content + "</div>\n");
}

void add(std::string& body, const Dataset& dataset, std::string_view id, std::string_view heading,
         const std::vector<SampleGroup>& groups) {
  if (groups.empty()) return;
  std::string content = shown(groups.size()) + "<div class=\"groups\">\n";
  for (size_t k = 0; k < std::min(groups.size(), kMostShown); ++k) {
    content += "<div class=\"row zooms\">\n";
    for (const size_t i : groups[k]) content += figure(dataset, i, "");
    content += "</div>\n";
  }
  body += html::section(id, fmt::format("{} ({})", heading, groups.size()), content + "</div>\n");
}

std::string tile(size_t count, std::string_view what) {
  return html::tile(std::to_string(count), what);
}

std::string groups(size_t count, std::string_view what) {
  return tile(count, fmt::format("group{} {}", count == 1 ? "" : "s", what));
}

}  // namespace

std::string class_chart(const Dataset& dataset) {
  constexpr std::array<std::pair<Split, std::string_view>, 4> kBars = {
      {{Split::unassigned, "unassigned"},
       {Split::train, "train"},
       {Split::validation, "validation"},
       {Split::test, "test"}}};
  std::vector<std::array<size_t, 4>> counts(dataset.classes.size());
  size_t most = 1;
  for (const Sample& sample : dataset.samples) {
    auto& row = counts[sample.label];
    for (size_t k = 0; k < kBars.size(); ++k)
      if (kBars.at(k).first == sample.split) ++row.at(k);
    most = std::max(most, row[0] + row[1] + row[2] + row[3]);
  }
  std::string legend;
  for (const auto& [split, name] : kBars)
    if (split != Split::unassigned && dataset.has(split))
      legend += fmt::format("<span class=\"key {}\"></span>{}", name, name);
  std::string out = legend.empty() ? "" : "<p aria-hidden=\"true\">" + legend + "</p>\n";
  out += "<table class=\"bars\">\n<caption class=\"unseen\">Images in each class</caption>\n";
  for (size_t label = 0; label < counts.size(); ++label) {
    std::string bars;
    std::string words;
    size_t total = 0;
    for (size_t k = 0; k < kBars.size(); ++k) {
      const size_t count = counts[label].at(k);
      total += count;
      if (count == 0) continue;
      bars += fmt::format("<i class=\"{}\" style=\"width:{:.2f}%\"></i>", kBars.at(k).second,
                          100.0 * static_cast<double>(count) / static_cast<double>(most));
      words += fmt::format("{}{} {}", words.empty() ? "" : ", ", count, kBars.at(k).second);
    }
    out += fmt::format(
        "<tr><th scope=\"row\">{}</th><td title=\"{}\"><div class=\"bar\">{}</div></td>"
        "<td>{}</td></tr>\n",
        html::escape(dataset.classes[label]), words, bars, total);
  }
  return html::scroll_area("images in each class", out + "</table>",
                           counts.size() > html::kLong ? "long" : "");
}

std::string data_page(const Dataset& dataset, const Inspection& found, const LabelCheck* labels) {
  check_dataset(dataset);
  check_inspection(dataset, found);
  std::string body = fmt::format("<h1>{}</h1>\n<p class=\"dim\">What graft check found.</p>\n",
                                 html::escape(printable(dataset.root)));
  body += "<div class=\"tiles\">\n" + tile(dataset.samples.size(), "images") +
          tile(dataset.classes.size(), "classes") + tile(found.corrupt.size(), "damaged") +
          groups(found.duplicates.size(), "of identical files") +
          tile(found.conflicting_labels.size(), "with conflicting labels") +
          tile(found.train_test_leaks.size(), "in train and test") +
          groups(found.near_duplicates.size(), "that look alike") + "</div>\n";
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
