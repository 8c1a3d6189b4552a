// What `graft predict` says of each image: on standard output, in files, in folders.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/common.h"
#include "graft/results.h"
#include "graft/sort_images.h"

namespace graft::cli {

struct PredictOptions {
  CommonOptions common;
  std::string model;
  std::vector<std::string> paths;
  int top = 1;
  int views = 0;
  Precision precision = Precision::fp32;
  std::string device = "cpu";
  std::string format = "text";
  bool format_given = false;  // --format or --json
  std::string explain;
  std::string explain_layer;
  bool force = false;
  bool json = false;
  bool logits = false;
  bool probabilities = false;
  std::vector<std::string> outputs;
  std::string sort_into;
  std::string link;
  double unsure = 0;
  std::string watch;
  double watch_every = 0;  // seconds; 0: told by the system
};

/// Tells results one by one, wherever they were asked for.
class PredictOutput {
 public:
  PredictOutput(const PredictOptions& options, const std::vector<std::string>& classes);

  /// Pixels of the longer side of the images that add() wants; 0: none.
  [[nodiscard]] int thumbnail() const;
  void add(const std::filesystem::path& path, const Prediction& prediction, const Image& thumbnail);
  void add_error(const std::string& path, const std::string& message);
  /// What was told so far is there for others to read.
  void flush();
  /// Returns the exit code.
  int finish();

  /// Results that appear as they come need no progress bar beside them.
  [[nodiscard]] bool shows_progress() const;

 private:
  void print_text(const std::filesystem::path& path, const Prediction& p);

  const PredictOptions& options_;
  ResultOptions results_;
  bool printed_;  // on standard output
  bool json_;
  bool csv_;
  std::vector<std::unique_ptr<ResultFile>> files_;
  std::optional<ImageSorter> sorter_;
  nlohmann::json rows_ = nlohmann::json::array();
  nlohmann::json errors_ = nlohmann::json::array();
  bool answered_ = false;  ///< for any image
  size_t failed_ = 0;      ///< images
  size_t untold_ = 0;      ///< of those, beyond the first few
};

}  // namespace graft::cli
