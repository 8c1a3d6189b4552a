#include "report/compare_rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/progress.h"
#include "recipe/options_file.h"

namespace graft {
namespace {

/// A figure of metrics.json, whose kinds read_run_folder has checked.
std::string number(const nlohmann::json& metrics, const char* split, const char* key) {
  const auto figures = metrics.find(split);
  if (figures == metrics.end()) return kNoFigure;
  const auto figure = figures->find(key);
  return figure == figures->end() || figure->is_null()
             ? kNoFigure
             : fmt::format("{:.4f}", figure->get<double>());
}

std::string share(int64_t part, int64_t whole) {
  return fmt::format("{:.1f} %", 100.0 * static_cast<double>(part) / static_cast<double>(whole));
}

std::map<std::string, std::string> options_of(const ComparedRun& run) {
  std::map<std::string, std::string> out;
  for (const options::OptionLine& line : options::read_options(run.run.config, run.name))
    out.emplace(line.key, line.value);
  return out;
}

}  // namespace

std::string run_option(const ComparedRun& run, const std::string& key) {
  const std::map<std::string, std::string> all = options_of(run);
  const auto at = all.find(key);
  return at == all.end() ? "" : at->second;
}

double run_seconds(const ComparedRun& run) {
  if (run.run.times) return run.run.times->total();
  double sum = 0;
  for (const EpochRecord& row : run.run.history) sum += row.seconds;
  return sum;
}

std::vector<std::string> run_header() {
  return {"run",      "backbone",   "fine-tune", "epochs",   "best", "val top-1",
          "val loss", "test top-1", "test loss", "test ECE", "time"};
}

std::vector<std::string> run_row(const ComparedRun& run) {
  const nlohmann::json& m = run.run.metrics;
  return {run.name,
          run_option(run, "backbone"),
          run_option(run, "fine-tune"),
          std::to_string(run.run.history.size()),
          std::to_string(run.run.best_epoch()),
          number(m, "validation", "top1"),
          number(m, "validation", "loss"),
          number(m, "test", "top1"),
          number(m, "test", "loss"),
          number(m, "test", "ece"),
          format_duration(run_seconds(run))};
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
          p.images == 0 ? kNoFigure : fmt::format("{:.4f}", p.p)};
}

std::vector<std::string> class_header() {
  return {"class", "images", "a right", "b right", "b − a"};
}

std::vector<std::string> class_row(const ClassComparison& c) {
  return {c.label, std::to_string(c.images), share(c.right_a, c.images), share(c.right_b, c.images),
          fmt::format("{:+d}", c.right_b - c.right_a)};
}

std::string verdict(const std::vector<ComparedRun>& runs, const PairComparison& p) {
  const std::string& a = runs[p.a].name;
  const std::string& b = runs[p.b].name;
  if (p.images == 0)
    return fmt::format("{} and {}: no image that neither was trained on; give images with `data`",
                       a, b);
  // From the better one's side.
  const bool b_leads = p.difference >= 0;
  const double difference = b_leads ? p.difference : -p.difference;
  const double low = b_leads ? p.low : -p.high;
  const double high = b_leads ? p.high : -p.low;
  const std::string figures =
      fmt::format("{:.1f} points, 95 % between {:.1f} and {:.1f}, p = {:.2g}, on {} images",
                  100 * difference, 100 * low, 100 * high, p.p, format_count(p.images));
  if (p.is_significant())
    return fmt::format("{} is better than {}: {}", b_leads ? b : a, b_leads ? a : b, figures);
  return fmt::format(
      "{} and {} do not differ beyond chance: {}", a, b,
      difference == 0 ? figures : fmt::format("{} leads by {}", b_leads ? b : a, figures));
}

std::vector<std::vector<std::string>> option_differences(const std::vector<ComparedRun>& runs) {
  std::vector<std::map<std::string, std::string>> options;
  std::map<std::string, std::string> all;
  for (const ComparedRun& run : runs) {
    options.push_back(options_of(run));
    all.insert(options.back().begin(), options.back().end());
  }
  std::vector<std::vector<std::string>> rows = {{"option"}};
  for (const ComparedRun& run : runs) rows[0].push_back(run.name);
  for (const auto& [key, unused] : all) {
    std::vector<std::string> row = {key};
    for (const auto& mine : options) {
      const auto at = mine.find(key);
      row.push_back(at == mine.end() || at->second.empty() ? kNoFigure : at->second);
    }
    if (std::any_of(row.begin() + 2, row.end(), [&](const std::string& v) { return v != row[1]; }))
      rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace graft
