// Where a training run's batches come from: the images of a dataset, and what became of those that
// cannot be read.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "train/batches.h"
#include "train/trainer.h"

namespace graft {

/// Not thread-safe. The job must outlive it.
class Sources {
 public:
  explicit Sources(const TrainJob& job) : job_(job) {}

  /// Decodes a split's images and computes what stays the same in all epochs of the phase. Throws
  /// Error(input) where none of them can be read.
  std::unique_ptr<Batches> open(const TrainPhase& phase, Split split);

  /// Before that, in a group: what the frozen prefix makes of the split's images is computed by all
  /// processes together. `name`: see extract_together().
  void extract(const TrainPhase& phase, Split split, const std::string& name);

  /// Images that can no longer be read: a few are done without, but not without most of them (their
  /// disk has gone), nor without a class.
  void note_lost(const Batches::Batch& batch, const Batches& batches, int epoch);

  /// Samples that could not be read, or not in all epochs, and why.
  [[nodiscard]] const std::vector<size_t>& excluded() const { return excluded_; }
  [[nodiscard]] const std::vector<std::string>& errors() const { return errors_; }

 private:
  struct Described;

  [[nodiscard]] std::unique_ptr<Described> describe(const TrainPhase& phase, Split split);

  const TrainJob& job_;
  std::map<Split, std::vector<std::string>> hashes_;  // of the files, in the order of the dataset
  std::vector<size_t> excluded_;
  std::vector<std::string> errors_;
  std::set<size_t> lost_;  // samples that could be read at first
};

}  // namespace graft
