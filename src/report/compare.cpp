#include "report/compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "base/fail.h"
#include "base/file.h"
#include "base/progress.h"
#include "report/chart.h"
#include "report/html.h"

namespace graft {
namespace {

/// A value of config.toml as text, without its quotes; "" where it is missing.
std::string option(const ComparedRun& run, const std::string& key) {
  const std::string start = key + " = ";
  size_t at = run.run.config.starts_with(start) ? 0 : run.run.config.find("\n" + start);
  if (at == std::string::npos) return "";
  if (at > 0 || !run.run.config.starts_with(start)) ++at;
  at += start.size();
  std::string value = run.run.config.substr(at, run.run.config.find('\n', at) - at);
  if (value.size() >= 2 && (value.front() == '"' || value.front() == '\''))
    value = value.substr(1, value.size() - 2);
  return value;
}

/// A figure of metrics.json, whose kinds read_run_folder has checked.
std::string number(const nlohmann::json& metrics, const char* split, const char* key) {
  const auto figures = metrics.find(split);
  if (figures == metrics.end()) return "–";
  const auto figure = figures->find(key);
  return figure == figures->end() || figure->is_null()
             ? "–"
             : fmt::format("{:.4f}", figure->get<double>());
}

double seconds(const ComparedRun& run) {
  double sum = 0;
  for (const EpochRecord& row : run.run.history) sum += row.seconds;
  return sum;
}

const std::vector<std::string>& header() {
  static const std::vector<std::string> kHeader = {
      "run",      "backbone",   "fine-tune", "epochs",   "best", "val top-1",
      "val loss", "test top-1", "test loss", "test ECE", "time"};
  return kHeader;
}

std::vector<std::string> row(const ComparedRun& run) {
  const nlohmann::json& m = run.run.metrics;
  return {run.name,
          option(run, "backbone"),
          option(run, "fine-tune"),
          std::to_string(run.run.history.size()),
          std::to_string(run.run.best_epoch()),
          number(m, "validation", "top1"),
          number(m, "validation", "loss"),
          number(m, "test", "top1"),
          number(m, "test", "loss"),
          number(m, "test", "ece"),
          format_duration(seconds(run))};
}

std::vector<std::string> pair_header() {
  return {"a", "b", "images", "both right", "only a", "only b", "p (McNemar)"};
}

std::vector<std::string> pair_row(const std::vector<ComparedRun>& runs, const PairComparison& p) {
  return {runs[p.a].name,
          runs[p.b].name,
          p.images == 0 ? "none in common" : fmt::format("{} {}", p.images, p.split),
          std::to_string(p.both),
          std::to_string(p.only_a),
          std::to_string(p.only_b),
          p.images == 0 ? "–" : fmt::format("{:.4f}", p.p)};
}

/// Characters, not bytes.
size_t width_of(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0U) != 0x80;
  }));
}

using Rows = std::vector<std::vector<std::string>>;

/// The first row is the header. `texts`: columns of text, which stand left, like their headers;
/// figures stand right.
std::string text_table(const Rows& rows, std::initializer_list<size_t> texts,
                       std::string_view indent = "") {
  std::vector<size_t> widths(rows[0].size(), 0);
  for (const auto& cells : rows)
    for (size_t c = 0; c < cells.size(); ++c) widths[c] = std::max(widths[c], width_of(cells[c]));
  std::string out;
  for (const auto& cells : rows) {
    std::string line(indent);
    for (size_t c = 0; c < cells.size(); ++c) {
      const std::string pad(widths[c] - width_of(cells[c]), ' ');
      const bool left = std::find(texts.begin(), texts.end(), c) != texts.end();
      line += (c > 0 ? "  " : "") + (left ? cells[c] + pad : pad + cells[c]);
    }
    out += line.substr(0, line.find_last_not_of(' ') + 1) + '\n';
  }
  return out;
}

/// A row for each pair, or where the runs' names are too long for a line, a block.
std::string pairs_text(const std::vector<ComparedRun>& runs,
                       const std::vector<PairComparison>& pairs) {
  constexpr size_t kMostColumns = 80;
  Rows rows = {pair_header()};
  for (const PairComparison& pair : pairs) rows.push_back(pair_row(runs, pair));
  std::string table = text_table(rows, {0, 1, 2});
  if (width_of(table.substr(0, table.find('\n'))) <= kMostColumns) return table;
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

bool has_split(const ComparedRun& run, std::string_view split) {
  return std::any_of(run.predictions.begin(), run.predictions.end(),
                     [&](const PredictionRow& r) { return r.split == split; });
}

}  // namespace

ComparedRun read_compared_run(const std::filesystem::path& folder) {
  std::error_code error;
  if (!fs::is_directory(folder, error))
    fail(ErrorKind::input, "{}: no run folder; give folders that graft train made",
         printable(folder));
  ComparedRun out{printable(folder), read_run_folder(folder), {}};
  while (out.name.size() > 1 && out.name.ends_with('/')) out.name.pop_back();
  for (const char* file : {run_files::kHistory, run_files::kMetrics, run_files::kPredictions})
    if (!fs::exists(folder / file, error))
      fail(ErrorKind::input, "{}: no finished run: it has no {}; train it to its end",
           printable(folder), file);
  out.predictions = read_predictions(folder / run_files::kPredictions);
  return out;
}

double mcnemar(int64_t only_a, int64_t only_b) {
  const auto n = static_cast<double>(only_a + only_b);
  if (n == 0) return 1;
  double tail = 0;
  for (int64_t k = 0; k <= std::min(only_a, only_b); ++k) {
    const auto i = static_cast<double>(k);
    tail += std::exp(std::lgamma(n + 1) - std::lgamma(i + 1) - std::lgamma(n - i + 1) -
                     n * std::log(2.0));
  }
  return std::min(1.0, 2 * tail);
}

std::vector<PairComparison> compare_pairs(const std::vector<ComparedRun>& runs) {
  std::vector<PairComparison> out;
  for (size_t a = 0; a < runs.size(); ++a)
    for (size_t b = a + 1; b < runs.size(); ++b) {
      PairComparison pair;
      pair.a = a;
      pair.b = b;
      pair.split = has_split(runs[a], "test") && has_split(runs[b], "test") ? "test" : "val";
      std::map<std::string, const PredictionRow*> of_a;
      for (const PredictionRow& r : runs[a].predictions)
        if (r.split == pair.split) of_a.emplace(r.path, &r);
      for (const PredictionRow& r : runs[b].predictions) {
        if (r.split != pair.split) continue;
        const auto at = of_a.find(r.path);
        if (at == of_a.end() || at->second->label != r.label) continue;
        const bool right_a = at->second->predicted == r.label;
        const bool right_b = r.predicted == r.label;
        ++pair.images;
        pair.both += right_a && right_b ? 1 : 0;
        pair.only_a += right_a && !right_b ? 1 : 0;
        pair.only_b += right_b && !right_a ? 1 : 0;
      }
      pair.p = mcnemar(pair.only_a, pair.only_b);
      out.push_back(pair);
    }
  return out;
}

nlohmann::json compare_json(const std::vector<ComparedRun>& runs,
                            const std::vector<PairComparison>& pairs) {
  nlohmann::json out = {{"runs", nlohmann::json::array()}, {"pairs", nlohmann::json::array()}};
  for (const ComparedRun& run : runs)
    out["runs"].push_back({{"run", run.name},
                           {"backbone", option(run, "backbone")},
                           {"head", option(run, "head")},
                           {"fine_tune", option(run, "fine-tune")},
                           {"epochs", run.run.history.size()},
                           {"best_epoch", run.run.best_epoch()},
                           {"seconds", seconds(run)},
                           {"metrics", run.run.metrics}});
  for (const PairComparison& p : pairs)
    out["pairs"].push_back({{"a", runs[p.a].name},
                            {"b", runs[p.b].name},
                            {"split", p.split},
                            {"images", p.images},
                            {"both_right", p.both},
                            {"only_a", p.only_a},
                            {"only_b", p.only_b},
                            {"p", p.p}});
  return out;
}

std::string compare_text(const std::vector<ComparedRun>& runs,
                         const std::vector<PairComparison>& pairs) {
  Rows rows = {header()};
  for (const ComparedRun& run : runs) rows.push_back(row(run));
  return text_table(rows, {0, 1, 2}) +
         "time: of the epochs, without the features of frozen layers\n"
         "\nthe same images, McNemar's exact test\n" +
         pairs_text(runs, pairs);
}

std::string compare_page(const std::vector<ComparedRun>& runs,
                         const std::vector<PairComparison>& pairs) {
  const auto escaped = [](std::vector<std::string> cells) {
    for (std::string& cell : cells) cell = html::escape(cell);
    return cells;
  };
  std::vector<std::vector<std::string>> rows;
  rows.reserve(runs.size());
  for (const ComparedRun& run : runs) rows.push_back(escaped(row(run)));
  std::string body = "<h1>Runs side by side</h1>\n";
  body += html::section("runs", "Runs", html::table(header(), rows));
  rows.clear();
  for (const PairComparison& pair : pairs) rows.push_back(escaped(pair_row(runs, pair)));
  body += html::section(
      "pairs", "The same images",
      html::table(pair_header(), rows) +
          "<p>p is the chance that two classifiers that err equally often differ this much on "
          "these images (McNemar's exact test). Below 0.05 the difference is unlikely to be "
          "chance; with many pairs expect a few such by chance.</p>\n");
  const auto chart = [&](const char* title, const char* label, double EpochRecord::*value) {
    Chart out{title, "epoch", label, false, {}, {}};
    for (const ComparedRun& run : runs) {
      // The folder's own name, where the path before it says little.
      out.series.push_back({fs::path(run.name).filename().string(), {}});
      for (const EpochRecord& r : run.run.history)
        if (std::isfinite(r.*value)) out.series.back().points.emplace_back(r.epoch, r.*value);
    }
    return chart_svg(out);
  };
  body += html::section("curves", "Curves",
                        "<div class=\"charts\">\n" +
                            chart("Validation accuracy", "top-1", &EpochRecord::val_accuracy) +
                            chart("Validation loss", "cross-entropy", &EpochRecord::val_loss) +
                            "</div>\n");
  rows.clear();
  for (const ComparedRun& run : runs)
    rows.push_back({html::escape(run.name), "<pre>" + html::escape(run.run.config) + "</pre>"});
  body += html::section("configurations", "Configurations",
                        html::table({"run", "config.toml"}, rows, false));
  return html::page("Runs side by side", body);
}

Comparison compare_runs(const std::vector<std::filesystem::path>& folders) {
  std::vector<ComparedRun> runs;
  std::set<fs::path> seen;
  for (const fs::path& folder : folders) {
    if (!seen.insert(fs::weakly_canonical(folder)).second)
      fail(ErrorKind::usage, "{}: named twice; name different runs", printable(folder));
    runs.push_back(read_compared_run(folder));
  }
  if (runs.size() < 2) fail(ErrorKind::usage, "compare needs at least two run folders");
  const std::vector<PairComparison> pairs = compare_pairs(runs);
  return {compare_text(runs, pairs),
          compare_json(runs, pairs).dump(2, ' ', false, nlohmann::json::error_handler_t::replace),
          compare_page(runs, pairs)};
}

}  // namespace graft
