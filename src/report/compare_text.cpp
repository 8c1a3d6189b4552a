// A comparison as text and as JSON.
#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>

#include "base/columns.h"
#include "base/file.h"
#include "report/compare.h"
#include "report/compare_rows.h"

namespace graft {
namespace {

constexpr size_t kMostColumns = 80;
constexpr size_t kFlipsShown = 10;

using Rows = std::vector<std::vector<std::string>>;

/// The first row is the header. `texts`: columns of text, which stand left, like their headers;
/// figures stand right.
std::string text_table(const Rows& rows, std::initializer_list<size_t> texts,
                       std::string_view indent = "") {
  std::vector<size_t> widths(rows[0].size(), 0);
  for (const auto& cells : rows)
    for (size_t c = 0; c < cells.size(); ++c) widths[c] = std::max(widths[c], columns_of(cells[c]));
  std::string out;
  for (const auto& cells : rows) {
    std::string line(indent);
    for (size_t c = 0; c < cells.size(); ++c) {
      const bool left = std::find(texts.begin(), texts.end(), c) != texts.end();
      line += (c > 0 ? "  " : "") + in_columns(cells[c], widths[c], !left);
    }
    out += line.substr(0, line.find_last_not_of(' ') + 1) + '\n';
  }
  return out;
}

size_t width_of(const std::string& table) {
  size_t widest = 0;
  for (size_t at = 0; at < table.size();) {
    const size_t end = std::min(table.find('\n', at), table.size());
    widest = std::max(widest, columns_of(table.substr(at, end - at)));
    at = end + 1;
  }
  return widest;
}

/// Without columns that say nothing of any run.
Rows without_empty_columns(const Rows& rows) {
  Rows out(rows.size());
  for (size_t c = 0; c < rows[0].size(); ++c) {
    const bool empty = std::all_of(rows.begin() + 1, rows.end(),
                                   [&](const auto& row) { return row[c] == kNoFigure; });
    for (size_t r = 0; !empty && r < rows.size(); ++r) out[r].push_back(rows[r][c]);
  }
  return out;
}

/// The table of runs, in as many tables one below the other as the line's width asks for, each with
/// the runs' names.
std::string runs_text(const std::vector<ComparedRun>& runs) {
  constexpr size_t kMostName = 40;
  Rows rows = {run_header()};
  for (const ComparedRun& run : runs) rows.push_back(run_row(run));
  rows = without_empty_columns(rows);
  for (auto& row : rows) row[0] = cut_to_columns(row[0], kMostName);
  constexpr size_t kTexts = 3;  // columns of text: run, backbone, fine-tune
  std::string out;
  for (size_t from = 1; from < rows[0].size();) {
    Rows part(rows.size());
    std::string table;
    size_t to = from;
    for (size_t r = 0; r < rows.size(); ++r) part[r].push_back(rows[r][0]);
    for (; to < rows[0].size(); ++to) {
      for (size_t r = 0; r < rows.size(); ++r) part[r].push_back(rows[r][to]);
      const std::string wider = from < kTexts ? text_table(part, {0, 1, 2}) : text_table(part, {0});
      if (to > from && width_of(wider) > kMostColumns) break;
      table = wider;
    }
    out += (out.empty() ? "" : "\n") + table;
    from = to;
  }
  return out;
}

/// A row for each pair, or where the runs' names are too long for a line, a block.
std::string pairs_text(const std::vector<ComparedRun>& runs,
                       const std::vector<PairComparison>& pairs) {
  Rows rows = {pair_header()};
  for (const PairComparison& pair : pairs) rows.push_back(pair_row(runs, pair));
  std::string table = text_table(rows, {0, 1, 2});
  if (width_of(table) <= kMostColumns) return table;
  std::string out;
  for (size_t i = 1; i < rows.size(); ++i) {
    const auto figures = [](const std::vector<std::string>& row) {
      return std::vector<std::string>(row.begin() + 2, row.end());
    };
    out += fmt::format("a  {}\nb  {}\n{}", rows[i][0], rows[i][1],
                       text_table({figures(rows[0]), figures(rows[i])}, {0}, "   "));
  }
  return out;
}

/// Classes and images of a single pair, for which there is room.
std::string details_text(const std::vector<ComparedRun>& runs, const PairComparison& pair) {
  if (pair.images == 0) return "";
  Rows rows = {class_header()};
  for (const ClassComparison& c : pair.classes) rows.push_back(class_row(c));
  std::string out = fmt::format("\na is {}, b is {}\n", runs[pair.a].name, runs[pair.b].name);
  out += text_table(rows, {0});
  if (pair.flips.empty()) return out;
  out += fmt::format("\n{} images that one alone got right, the most certain first\n",
                     pair.flips.size());
  for (size_t i = 0; i < std::min(kFlipsShown, pair.flips.size()); ++i) {
    const Flip& flip = pair.flips[i];
    out += fmt::format("  {}: {}, a says {} ({:.0f} %), b says {} ({:.0f} %)\n",
                       printable(fs::path(flip.a->path)), flip.a->label, flip.a->predicted,
                       100 * flip.a->probability, flip.b->predicted, 100 * flip.b->probability);
  }
  if (pair.flips.size() > kFlipsShown)
    out += fmt::format("  … and {} more; --json has all, --html shows them\n",
                       pair.flips.size() - kFlipsShown);
  return out;
}

/// A table of options, or where it would be too wide a block for each.
std::string options_text(const std::vector<ComparedRun>& runs) {
  const Rows rows = option_differences(runs);
  if (rows.size() < 2) return "\nthe runs have the same options\n";
  std::string out = "\noptions in which they differ\n";
  const std::string table = text_table(rows, {0, 1, 2, 3, 4, 5, 6, 7});
  if (width_of(table) <= kMostColumns && runs.size() < 8) return out + table;
  for (size_t r = 1; r < rows.size(); ++r) {
    out += rows[r][0] + '\n';
    for (size_t c = 1; c < rows[r].size(); ++c)
      out += fmt::format("  {}: {}\n", rows[0][c], rows[r][c]);
  }
  return out;
}

nlohmann::json pair_json(const std::vector<ComparedRun>& runs, const PairComparison& p) {
  nlohmann::json classes = nlohmann::json::array();
  for (const ClassComparison& c : p.classes)
    classes.push_back(
        {{"class", c.label}, {"images", c.images}, {"right_a", c.right_a}, {"right_b", c.right_b}});
  nlohmann::json flips = nlohmann::json::array();
  for (const Flip& flip : p.flips)
    flips.push_back(
        {{"path", flip.a->path},
         {"label", flip.a->label},
         {"a", {{"predicted", flip.a->predicted}, {"probability", flip.a->probability}}},
         {"b", {{"predicted", flip.b->predicted}, {"probability", flip.b->probability}}}});
  nlohmann::json better;
  if (p.is_significant()) better = runs[p.difference > 0 ? p.b : p.a].name;
  return {{"a", runs[p.a].name},
          {"b", runs[p.b].name},
          {"split", p.split},
          {"images", p.images},
          {"both_right", p.both},
          {"only_a", p.only_a},
          {"only_b", p.only_b},
          {"p", p.p},
          {"difference", p.difference},
          {"interval", {p.low, p.high}},
          {"better", better},
          {"per_class", classes},
          {"flipped", flips}};
}

}  // namespace

nlohmann::json compare_json(const std::vector<ComparedRun>& runs,
                            const std::vector<PairComparison>& pairs) {
  nlohmann::json out = {{"runs", nlohmann::json::array()},
                        {"pairs", nlohmann::json::array()},
                        {"options", nlohmann::json::object()}};
  for (const ComparedRun& run : runs)
    out["runs"].push_back({{"run", run.name},
                           {"backbone", run_option(run, "backbone")},
                           {"head", run_option(run, "head")},
                           {"fine_tune", run_option(run, "fine-tune")},
                           {"epochs", run.run.history.size()},
                           {"best_epoch", run.run.best_epoch()},
                           {"seconds", run_seconds(run)},
                           {"metrics", run.run.metrics}});
  for (const PairComparison& p : pairs) out["pairs"].push_back(pair_json(runs, p));
  const Rows rows = option_differences(runs);
  for (size_t r = 1; r < rows.size(); ++r)
    out["options"][rows[r][0]] = std::vector<std::string>(rows[r].begin() + 1, rows[r].end());
  return out;
}

std::string compare_text(const std::vector<ComparedRun>& runs,
                         const std::vector<PairComparison>& pairs) {
  std::string out = runs_text(runs) +
                    "time: of the whole run; of runs of earlier versions, of their epochs\n"
                    "\nthe same images, McNemar's exact test\n" +
                    pairs_text(runs, pairs) + '\n';
  for (const PairComparison& pair : pairs) out += verdict(runs, pair) + '\n';
  if (pairs.size() == 1)
    out += details_text(runs, pairs[0]);
  else if (!pairs.empty())
    out += "classes and photos in which each pair differs: --html FILE.html shows them\n";
  return out + options_text(runs);
}

}  // namespace graft
