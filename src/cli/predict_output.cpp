#include "cli/predict_output.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/diagnostics.h"
#include "base/fail.h"
#include "base/file.h"
#include "base/progress.h"
#include "cli/outputs.h"
#include "recipe/option_values.h"

namespace graft::cli {
namespace {

Placing placing(const std::string& link) {
  if (link.empty()) return Placing::copy;
  return link == "hard" ? Placing::hard_link : Placing::symbolic_link;
}

}  // namespace

PredictOutput::PredictOutput(const PredictOptions& options, const std::vector<std::string>& classes)
    : options_(options),
      results_{.classes = classes,
               .top = static_cast<size_t>(options.top),
               .logits = options.logits,
               .probabilities = options.probabilities,
               .unsure = options.unsure,
               .title = "Classified by " + printable(options.model),
               .precision = resolve_precision(options.precision, options.device)},
      printed_(options.outputs.empty() || options.format_given),
      json_(options.json || options.format == "json"),
      csv_(options.format == "csv" && !json_) {
  if (!options.sort_into.empty()) {
    sorter_.emplace(options.sort_into, classes,
                    SortOptions{.placing = placing(options.link), .unsure = options.unsure});
    if (!options.common.quiet)
      for (const std::string& note : sorter_->notes()) print_diagnostic("graft: {}\n", note);
  }
  for (const std::string& file : options.outputs)
    files_.push_back(options.watch.empty() ? ResultFile::create(file, results_)
                                           : ResultFile::append(file, results_));
  if (csv_ && printed_) print_result("{}\n", result_csv_header(results_));
}

int PredictOutput::thumbnail() const {
  int side = 0;
  for (const auto& file : files_) side = std::max(side, file->thumbnail());
  return side;
}

void PredictOutput::print_text(const fs::path& path, const Prediction& p) {
  const size_t classes = results_.classes.size();
  const size_t told = options_.probabilities ? classes : std::min(results_.top, classes);
  print_result("{}:", printable(path));
  for (size_t k = 0; k < told; ++k) {
    const auto label = static_cast<size_t>(p.ranking.at(k));
    print_result("{} {} {:.4f}", k > 0 ? "," : "", printable(results_.classes[label]),
                 p.probabilities[label]);
    if (options_.logits) print_result(" (logit {:.4f})", p.logits[label]);
  }
  print_result("\n");
}

void PredictOutput::add(const fs::path& path, const Prediction& p, const Image& thumbnail) {
  answered_ = true;
  // First what may fail, so that nobody is told of a file in a folder that is not there.
  if (sorter_) sorter_->place(path, p);
  for (const auto& file : files_) file->add(path, p, thumbnail);
  if (!printed_) return;
  if (!json_ && !csv_) {
    print_text(path, p);
  } else if (csv_) {
    print_result("{}\n", result_csv_row(path.string(), p, results_));
  } else if (!options_.watch.empty()) {
    print_result("{}\n", result_json(path.string(), p, results_));
  } else {
    rows_.push_back(nlohmann::json::parse(result_json(path.string(), p, results_)));
  }
}

void PredictOutput::add_error(const std::string& path, const std::string& message) {
  constexpr size_t kMostTold = 20;
  if (failed_++ < kMostTold || !options_.watch.empty()) {
    std::fflush(stdout);  // keeps the two streams in order on a terminal
    print_diagnostic("graft: {}\n", message);
  } else {
    ++untold_;
  }
  for (const auto& file : files_) file->add_error(path, message);
  if (!json_ || !printed_) return;
  const nlohmann::json error = {{"path", path}, {"error", message}};
  if (options_.watch.empty())
    errors_.push_back(error);
  else
    print_result("{}\n", error.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

void PredictOutput::flush() {
  if (std::fflush(stdout) != 0) print_result("");  // which says why
}

int PredictOutput::finish() {
  if (json_ && printed_ && options_.watch.empty()) {
    nlohmann::json all = {{"predictions", std::move(rows_)},
                          {"errors", std::move(errors_)},
                          {"precision", options::word(results_.precision)}};
    if (results_.logits || results_.probabilities) all["classes"] = results_.classes;
    print_json(all);
  }
  // A table without a row is no reason to replace one.
  if (!answered_ && failed_ > 0 && options_.watch.empty() && !files_.empty()) {
    print_diagnostic("graft: no image could be classified, and nothing is written to {}\n",
                     options_.outputs.front());
    files_.clear();
  }
  for (size_t i = 0; i < files_.size(); ++i) {
    files_[i]->finish();
    tell_wrote(options_.common, options_.outputs[i]);
  }
  if (sorter_ && !options_.common.quiet) {
    print_diagnostic("sorted {}\n", sorter_->summary());
    if (const std::vector<fs::path>& stale = sorter_->stale(); !stale.empty())
      print_diagnostic(
          "graft: {} of them also lie{} in another folder, from before, and stay{} there: {}{}\n",
          stale.size(), stale.size() == 1 ? "s" : "", stale.size() == 1 ? "s" : "",
          printable(stale.front()), stale.size() > 1 ? ", …" : "");
  }
  if (untold_ > 0)
    print_diagnostic(
        "graft: {} more could not be classified, {} in all; {}\n", format_count(untold_),
        format_count(failed_),
        json_ && printed_ ? "\"errors\" lists them" : "-o FILE.json, .jsonl or .xlsx lists them");
  return failed_ > 0 ? 1 : 0;
}

bool PredictOutput::shows_progress() const {
  return !printed_ || json_ || ::isatty(STDOUT_FILENO) == 0;
}

}  // namespace graft::cli
