#include "report/predictions.h"

#include "report/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/csv.h"
#include "base/fail.h"
#include "base/file.h"

namespace graft {

void Predictions::add(const Sample& sample, std::span<const float> row) {
  samples.push_back(sample);
  logits.insert(logits.end(), row.begin(), row.end());
}

int Predictions::predicted(size_t i) const {
  const std::span<const float> values = row(i);
  return static_cast<int>(std::max_element(values.begin(), values.end()) - values.begin());
}

void check_predictions(const Predictions& p) {
  if (p.logits.size() != p.samples.size() * p.classes.size())
    fail(ErrorKind::usage, "predictions: {} logits for {} images and {} classes", p.logits.size(),
         p.samples.size(), p.classes.size());
  for (const Sample& sample : p.samples)
    if (sample.label < 0 || static_cast<size_t>(sample.label) >= p.classes.size())
      fail(ErrorKind::usage, "predictions: {}: label {} is none of the {} classes",
           printable(sample.path), sample.label, p.classes.size());
}

Metrics Predictions::measure() const {
  check_predictions(*this);
  MetricsBuilder builder(classes.size());
  for (size_t i = 0; i < samples.size(); ++i) builder.add(row(i), samples[i].label);
  return builder.finish();
}

std::string predictions_csv(const Predictions& predictions, const std::string& split, bool header,
                            bool whole) {
  check_predictions(predictions);
  std::string text;
  if (header) {
    text = "path,label,predicted,probability";
    if (!split.empty()) text += ",split";
    if (whole)
      for (const std::string& name : predictions.classes) text += "," + csv_field("p:" + name);
    text += '\n';
  }
  for (size_t i = 0; i < predictions.samples.size(); ++i) {
    const std::vector<double> p = softmax(predictions.row(i));
    const int best = predictions.predicted(i);
    // A run's own file is read from elsewhere, later.
    const fs::path& typed = predictions.samples[i].path;
    const fs::path path = split.empty() ? typed : fs::absolute(typed);
    text += fmt::format("{},{},{},{:.6f}", csv_field(path.string()),
                        csv_field(predictions.classes[predictions.samples[i].label]),
                        csv_field(predictions.classes[best]), p[best]);
    if (!split.empty()) text += "," + split;
    if (whole)
      for (const double value : p) text += fmt::format(",{:.17g}", value);
    text += '\n';
  }
  return text;
}

std::vector<PredictionRow> read_predictions(const std::filesystem::path& file) {
  const std::string name = printable(file);
  const std::vector<CsvRow> rows = parse_csv(read_text_file(file), name);
  const auto column = [&](std::string_view wanted) {
    const std::vector<std::string>& names = rows[0].fields;
    return static_cast<size_t>(std::find(names.begin(), names.end(), wanted) - names.begin());
  };
  std::vector<PredictionRow> out;
  if (rows.empty()) fail(ErrorKind::input, "{}: empty; expected graft's predictions", name);
  const size_t width = rows[0].fields.size();
  const size_t path = column("path");
  const size_t label = column("label");
  const size_t predicted = column("predicted");
  const size_t probability = column("probability");
  const size_t split = column("split");
  if (std::max({path, label, predicted, probability}) >= width)
    fail(ErrorKind::input,
         "{}: no predictions of graft: the columns path, label, predicted and "
         "probability are missing",
         name);
  for (size_t i = 1; i < rows.size(); ++i) {
    const std::vector<std::string>& f = rows[i].fields;
    if (f.size() != width)
      fail(ErrorKind::input, "{}:{}: {} fields where the header has {}", name, rows[i].line,
           f.size(), width);
    PredictionRow row{f[path], f[label], f[predicted], 0, split < width ? f[split] : ""};
    const std::string& number = f[probability];
    if (std::from_chars(number.data(), number.data() + number.size(), row.probability).ec !=
        std::errc())
      fail(ErrorKind::input, "{}:{}: '{}' is no probability", name, rows[i].line, number);
    out.push_back(std::move(row));
  }
  return out;
}

}  // namespace graft
