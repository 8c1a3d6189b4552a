#include "train/run_record.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>

#include "base/fail.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "recipe/options_text.h"

namespace graft {
namespace {

// More than can be counted to; adding to it does not overflow.
constexpr int64_t kMostSteps = int64_t{1} << 53U;
constexpr double kMostFigure = 1e300;  // losses, rates, seconds

fs::path normal(const fs::path& path) {
  return path.empty() ? path : fs::absolute(path).lexically_normal();
}

/// How a sample's path enters the hash of the data.
using PathText = std::function<std::string(const Sample&)>;

std::string data_hash(const Dataset& dataset, const PathText& path) {
  std::string text;
  for (const Sample& sample : dataset.samples)
    text += fmt::format("{}\n{}\n{}\n", path(sample), sample.label, static_cast<int>(sample.split));
  return content_hash(std::as_bytes(std::span(text)));
}

/// The same wherever the command is run from, and however its paths are typed: paths below what the
/// images of a split have in common.
std::string data_hash(const Dataset& dataset) {
  std::map<Split, fs::path> roots;
  for (const Sample& sample : dataset.samples) {
    const fs::path folder = normal(sample.path).parent_path();
    const auto [at, added] = roots.emplace(sample.split, folder);
    if (added) continue;
    fs::path common;
    for (auto a = at->second.begin(), b = folder.begin();
         a != at->second.end() && b != folder.end() && *a == *b; ++a, ++b)
      common /= *a;
    at->second = common;
  }
  return data_hash(dataset, [&](const Sample& sample) {
    return normal(sample.path).lexically_relative(roots.at(sample.split)).string();
  });
}

/// Hashes of earlier versions, in which paths were taken from DATA as typed: those of a run whose
/// --val or --test lies elsewhere mix relative and absolute paths.
std::vector<std::string> earlier_hashes(const Dataset& dataset) {
  const fs::path root = normal(dataset.root);
  const auto relative = [&](const Sample& s) { return normal(s.path).lexically_relative(root); };
  return {
      data_hash(dataset,
                [&](const Sample& s) { return s.path.lexically_relative(dataset.root).string(); }),
      data_hash(dataset, [&](const Sample& s) { return relative(s).string(); }),
      data_hash(dataset, [&](const Sample& s) {
        const fs::path path = relative(s);
        return path.begin() != path.end() && *path.begin() == ".." ? "" : path.string();
      })};
}

/// Of all phases but the last, which may be prolonged.
std::vector<int> phase_epochs(const std::vector<TrainPhase>& phases) {
  std::vector<int> out;
  for (size_t i = 0; i + 1 < phases.size(); ++i) out.push_back(phases[i].epochs);
  return out;
}

}  // namespace

bool RunProgress::add(const EpochRecord& record, size_t annealed_on) {
  history.push_back(record);
  EpochRecord best;
  best.val_accuracy = best_accuracy;
  best.val_loss = best_loss;
  if (!better_epoch(record, best) &&
      !(annealed_on > 0 && keeps_last_epoch(record, best, annealed_on)))
    return false;
  best_epoch = record.epoch;
  best_accuracy = record.val_accuracy;
  best_loss = record.val_loss;
  return true;
}

RunRecord::RunRecord(const TrainJob& job)
    : run_(printable(job.run)),
      identity_({{"data", data_hash(job.dataset)}, {"phase_epochs", phase_epochs(job.phases)}}),
      earlier_hashes_(earlier_hashes(job.dataset)) {
  Recipe recipe = job.recipe;
  options::visit_options(options::OptionRecorder{identity_, /*renewable=*/false}, recipe);
}

nlohmann::json RunRecord::write(const RunProgress& progress, int64_t steps,
                                int64_t without_moments) const {
  nlohmann::json record = identity_;
  record["steps"] = steps;
  record["steps_without_moments"] = without_moments;
  record["best_epoch"] = progress.best_epoch;
  record["best_accuracy"] = progress.best_accuracy;
  record["best_loss"] = progress.best_loss;
  record["history"] = nlohmann::json::array();
  for (const EpochRecord& r : progress.history)
    record["history"].push_back(
        {r.loss, r.accuracy, r.val_loss, r.val_accuracy, r.learning_rate, r.seconds});
  return record;
}

RunProgress RunRecord::read(const nlohmann::json& record) const {
  const auto same = [&](const char* key) {
    return record.value(key, nlohmann::json()) == identity_.at(key);
  };
  // Options that earlier versions did not record are taken to be the same, but what they could not
  // do.
  const auto recorded = [&](const std::string& key, const nlohmann::json& now) {
    if (key == "precision" && !record.contains(key))
      return nlohmann::json(options::word(Precision::fp32));
    return record.value(key, now);
  };
  for (const auto& [key, value] : identity_.items())
    if (key != "data" && recorded(key, value) != value)
      fail(ErrorKind::input, "{}: `{}` of a run that is resumed cannot change", run_,
           key == "phase_epochs" ? "freeze-epochs" : options::option_name(key));
  const nlohmann::json& data = record.value("data", nlohmann::json());
  if (!same("data") &&
      std::find(earlier_hashes_.begin(), earlier_hashes_.end(), data) == earlier_hashes_.end())
    fail(ErrorKind::input,
         "{}: the images or their split are not those that this run began with; train without "
         "`resume`, or go on from what it has learned with `from`",
         run_);
  const JsonField fields(record, fmt::format("{}: its training state", run_));
  const int64_t steps = fields.at("steps").integer(0, kMostSteps);
  if (const auto without = fields.find("steps_without_moments")) without->integer(0, steps);
  RunProgress progress;
  for (const JsonField& row : fields.at("history").items()) {
    const std::vector<JsonField> figures = row.items(6);
    const auto figure = [&](size_t i) { return figures[i].number(-kMostFigure, kMostFigure); };
    progress.history.push_back({static_cast<int>(progress.history.size()) + 1, figure(0), figure(1),
                                figure(2), figure(3), figure(4), figure(5)});
  }
  progress.best_epoch = static_cast<int>(
      fields.at("best_epoch").integer(0, static_cast<int64_t>(progress.history.size())));
  progress.best_accuracy = fields.at("best_accuracy").number(-1, 1);
  progress.best_loss = fields.at("best_loss").number(-kMostFigure, kMostFigure);
  return progress;
}

}  // namespace graft
