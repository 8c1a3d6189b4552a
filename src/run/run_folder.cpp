#include "run/run_folder.h"

#include <array>
#include <charconv>
#include <cmath>
#include <numeric>
#include <optional>

#include "base/csv.h"
#include "base/fail.h"
#include "base/file.h"
#include "base/json.h"
#include "dataset/folders.h"

namespace graft {
namespace {

constexpr int kMostEpochs = 1'000'000'000;
constexpr double kMostFigure = 1e300;
// The confusion matrix of 10,000 classes, each number in a line of its own.
constexpr JsonLimits kMetricsLimits = {
    .bytes = size_t{4} << 30, .values = 120'000'000, .depth = 16};

double history_number(const std::string& text, const std::string& name, size_t line) {
  double value = 0;
  const char* end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || at != end)
    fail(ErrorKind::input, "{}:{}: '{}' is no number", name, line, clipped(text));
  return value;
}

/// What others read of it. null is a figure that was not finite.
void check_metrics(const JsonField& metrics) {
  if (const auto epoch = metrics.find("best_epoch")) epoch->integer(0, kMostEpochs);
  for (const char* split : {"validation", "test"}) {
    const auto figures = metrics.find(split);
    for (const char* key : {"top1", "loss", "ece"})
      if (const auto figure = figures ? figures->find(key) : std::nullopt;
          figure && !figure->raw().is_null())
        figure->number(-kMostFigure, kMostFigure);
  }
}

}  // namespace

std::vector<EpochRecord> read_history(const std::filesystem::path& file) {
  const std::string name = printable(file);
  const std::string text = read_text_file(file);
  if (!text.starts_with(kHistoryHeader))
    fail(ErrorKind::input, "{}: not a history of graft: its first line must be {}", name,
         kHistoryHeader.substr(0, kHistoryHeader.size() - 1));
  std::vector<EpochRecord> out;
  const std::vector<CsvRow> rows = parse_csv(text, name);
  for (size_t i = 1; i < rows.size(); ++i) {
    const std::vector<std::string>& fields = rows[i].fields;
    if (fields.size() != 7)
      fail(ErrorKind::input, "{}:{}: {} numbers where 7 belong", name, rows[i].line, fields.size());
    // Losses may have become infinite or NaN; epochs count from 1.
    const auto figure = [&](size_t column) {
      return history_number(fields[column], name, rows[i].line);
    };
    const double epoch = figure(0);
    if (!(epoch >= 1 && epoch <= kMostEpochs) || epoch != std::floor(epoch))
      fail(ErrorKind::input, "{}:{}: '{}' is no epoch: a whole number from 1", name, rows[i].line,
           clipped(fields[0]));
    out.push_back({static_cast<int>(epoch), figure(1), figure(2), figure(3), figure(4), figure(5),
                   figure(6)});
  }
  return out;
}

void clear_run(const std::filesystem::path& folder) {
  using namespace run_files;
  std::error_code error;
  for (const char* name : {kModel, kHistory, kMetrics, kTimes, kConfig, kSplit, kLearnedBefore,
                           kPredictions, kSkipped, kCorrections, kReport, kRates, kRateChart, kBest,
                           kLast, kState, kPreviousState, kDamagedState})
    fs::remove(folder / name, error);
  if (!fs::is_directory(folder, error)) return;
  for (const fs::path& entry : list_folder(folder))
    if (entry.filename().string().starts_with(kEvents)) fs::remove(entry, error);
}

std::string_view to_string(TrainStage stage) {
  constexpr std::array<std::string_view, kTrainStages> kNames = {"features", "training",
                                                                 "evaluation", "report"};
  return kNames.at(static_cast<size_t>(stage));
}

double RunTimes::total() const { return std::accumulate(seconds.begin(), seconds.end(), 0.0); }

std::optional<RunTimes> read_times(const std::filesystem::path& folder) {
  const fs::path file = folder / run_files::kTimes;
  std::error_code error;
  if (!fs::exists(file, error)) return std::nullopt;
  const nlohmann::json document = read_json_file(file);
  const JsonField fields(document, printable(file));
  RunTimes times;
  times.started = fields.at("started").text();
  times.whole = fields.at("whole").boolean();
  for (size_t k = 0; k < kTrainStages; ++k)
    times.seconds.at(k) = fields.at("seconds")
                              .at(std::string(to_string(static_cast<TrainStage>(k))))
                              .number(0, kMostFigure);
  return times;
}

void write_times(const std::filesystem::path& folder, const RunTimes& times) {
  nlohmann::json seconds = nlohmann::json::object();
  for (size_t k = 0; k < kTrainStages; ++k)
    seconds[std::string(to_string(static_cast<TrainStage>(k)))] = times.seconds.at(k);
  write_file_atomic(
      folder / run_files::kTimes,
      nlohmann::json({{"started", times.started}, {"whole", times.whole}, {"seconds", seconds}})
              .dump(2) +
          "\n");
}

int RunFolder::best_epoch() const {
  return metrics.is_object() ? metrics.value("best_epoch", 0) : 0;
}

RunFolder read_run_folder(const std::filesystem::path& model) {
  std::error_code error;
  RunFolder run;
  run.folder = fs::is_directory(model, error) ? model : model.parent_path();
  if (run.folder.empty()) run.folder = ".";
  if (fs::exists(run.folder / run_files::kHistory, error))
    run.history = read_history(run.folder / run_files::kHistory);
  if (fs::exists(run.folder / run_files::kConfig, error))
    run.config = read_text_file(run.folder / run_files::kConfig);
  if (fs::exists(run.folder / run_files::kMetrics, error)) {
    const fs::path file = run.folder / run_files::kMetrics;
    run.metrics = read_json_file(file, kMetricsLimits);
    check_metrics(JsonField(run.metrics, printable(file)));
  }
  run.times = read_times(run.folder);
  return run;
}

}  // namespace graft
