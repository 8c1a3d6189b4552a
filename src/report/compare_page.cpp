// A comparison as a page.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "base/fail.h"
#include "base/file.h"
#include "report/chart.h"
#include "report/compare.h"
#include "report/compare_rows.h"
#include "report/html.h"

namespace graft {
namespace {

constexpr size_t kMostFlipsShown = 60;  // of a pair: some 300 kB
constexpr int kSide = 112;

using Rows = std::vector<std::vector<std::string>>;

std::vector<std::string> escaped(std::vector<std::string> cells) {
  for (std::string& cell : cells) cell = html::escape(cell);
  return cells;
}

std::string table_of(const Rows& rows, bool numeric = true) {
  Rows body;
  for (size_t r = 1; r < rows.size(); ++r) body.push_back(escaped(rows[r]));
  return html::table(escaped(rows[0]), body, numeric);
}

/// What runs are called on the page: their folders' own names, where the paths before them say
/// little, unless two have the same.
std::vector<std::string> short_names(const std::vector<ComparedRun>& runs) {
  std::vector<std::string> out;
  std::set<std::string> all;
  for (const ComparedRun& run : runs) {
    const fs::path path(run.name);
    out.push_back(printable(path.has_filename() ? path.filename() : path.parent_path().filename()));
    all.insert(out.back());
  }
  if (all.size() == runs.size()) return out;
  out.clear();
  for (const ComparedRun& run : runs) out.push_back(run.name);
  return out;
}

std::string answer(std::string_view who, const PredictionRow& row) {
  return fmt::format("{}: <b>{}</b> {:.0f}&nbsp;%", html::escape(who), html::escape(row.predicted),
                     100 * row.probability);
}

/// The file's name behind the folder that it is in, which mostly is its class.
std::string name_in_folder(const fs::path& path) {
  const fs::path folder = path.parent_path().filename();
  return printable(folder.empty() ? path.filename() : folder / path.filename());
}

std::string flip_figure(const Flip& flip, std::string_view a, std::string_view b) {
  std::string image;  // none: the photo has gone
  try {
    const std::string alternative =
        fmt::format("{}, classified as {} by {} and as {} by {}", flip.a->label, flip.a->predicted,
                    a, flip.b->predicted, b);
    image = html::thumbnail(load_image(flip.a->path), kSide, alternative);
  } catch (const Error&) {
    image.clear();
  }
  const fs::path path = flip.a->path;
  return html::figure(
      image,
      fmt::format("is <b>{}</b><br>{}<br>{}<br>{}", html::escape(flip.a->label), answer(a, *flip.a),
                  answer(b, *flip.b), html::copyable_path(path, name_in_folder(path))));
}

std::string flips_of(const PairComparison& pair, bool right_in_a, const std::string& a,
                     const std::string& b) {
  std::vector<const Flip*> mine;
  for (const Flip& flip : pair.flips)
    if ((flip.a->predicted == flip.a->label) == right_in_a) mine.push_back(&flip);
  if (mine.empty()) return "";
  std::string out = fmt::format("<h4>{} right in {} alone</h4>\n<div class=\"row zooms\">\n",
                                mine.size(), html::escape(right_in_a ? a : b));
  const size_t shown = std::min(mine.size(), kMostFlipsShown / 2);
  for (size_t i = 0; i < shown; ++i) out += flip_figure(*mine[i], a, b);
  out += "</div>\n";
  if (shown < mine.size())
    out += fmt::format("<p class=\"dim\">And {} more.</p>\n", mine.size() - shown);
  return out;
}

/// Who won, by how much, in which classes, on which images.
std::string pair_section(const std::vector<ComparedRun>& runs, const PairComparison& pair,
                         const std::vector<std::string>& names) {
  const std::string& a = names[pair.a];
  const std::string& b = names[pair.b];
  std::string out = fmt::format("<h3>{} and {}</h3>\n<p>{}.</p>\n", html::escape(a),
                                html::escape(b), html::escape(verdict(runs, pair)));
  if (pair.images == 0) return out;
  Rows rows = {{"class", "images", a + " right", b + " right", fmt::format("{} − {}", b, a)}};
  for (const ClassComparison& c : pair.classes) rows.push_back(class_row(c));
  return out + table_of(rows) + flips_of(pair, true, a, b) + flips_of(pair, false, a, b);
}

}  // namespace

std::string compare_page(const std::vector<ComparedRun>& runs,
                         const std::vector<PairComparison>& pairs) {
  std::string body = "<h1>Runs side by side</h1>\n";
  Rows rows = {run_header()};
  for (const ComparedRun& run : runs) rows.push_back(run_row(run));
  body += html::section("runs", "Runs", table_of(rows));
  rows = {pair_header()};
  for (const PairComparison& pair : pairs) rows.push_back(pair_row(runs, pair));
  body += html::section(
      "pairs", "The same images",
      table_of(rows) +
          "<p>p is the chance that two classifiers that err equally often differ this much on "
          "these images (McNemar's exact test). Below 0.05 the difference is unlikely to be "
          "chance; with many pairs expect a few such by chance.</p>\n");
  std::string each;
  const std::vector<std::string> names = short_names(runs);
  for (const PairComparison& pair : pairs) each += pair_section(runs, pair, names);
  body += html::section("differences", "Where they differ", each);
  const auto chart = [&](const char* title, const char* label, double EpochRecord::*value) {
    Chart out{title, "epoch", label, false, {}, {}};
    for (size_t i = 0; i < runs.size(); ++i) {
      out.series.push_back({names[i], {}});
      for (const EpochRecord& r : runs[i].run.history)
        if (std::isfinite(r.*value)) out.series.back().points.emplace_back(r.epoch, r.*value);
    }
    return chart_svg(out);
  };
  body += html::section("curves", "Curves",
                        "<div class=\"charts\">\n" +
                            chart("Validation accuracy", "top-1", &EpochRecord::val_accuracy) +
                            chart("Validation loss", "cross-entropy", &EpochRecord::val_loss) +
                            "</div>\n");
  const Rows options = option_differences(runs);
  body += html::section("configurations", "Options in which they differ",
                        options.size() < 2 ? "<p>None.</p>\n" : table_of(options, false));
  return html::page("Runs side by side", body);
}

}  // namespace graft
