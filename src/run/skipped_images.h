// Images of a training run that take no part.
#pragma once

#include <filesystem>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "dataset/skipped.h"
#include "graft/train.h"

namespace graft {

/// Collects them, tells the user, keeps skipped.csv in the run folder, and decides when they are
/// too many. Not thread-safe.
class SkippedImages {
 public:
  /// Both must outlive it.
  SkippedImages(const TrainPlan& plan, std::filesystem::path run, const RunContext& context);

  /// Before the first epoch: what could not be read, and the class table of what is used. Throws
  /// Error(input) if that is too many, or a class is left without training images. See
  /// TrainJob::on_read.
  void read(const std::vector<size_t>& samples, const std::vector<std::string>& why);

  void add(size_t sample, const std::string& why);
  /// After the last epoch: tells of what has come since. Returns false if too many test images are
  /// among them.
  bool finish();

  /// "path: why" of each.
  [[nodiscard]] std::vector<std::string> lines() const;

 private:
  void add(SkippedImage image);
  void write_and_tell();
  [[nodiscard]] Dataset what_is_used() const;
  void warn_of_classes_without(const Dataset& used, Split split) const;

  const TrainPlan& plan_;
  std::filesystem::path run_;
  const RunContext& context_;
  std::vector<SkippedImage> all_;
  std::set<std::pair<std::filesystem::path, Split>> known_;
  size_t told_ = 0;
};

}  // namespace graft
