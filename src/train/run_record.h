// How far a run has come, as its state on disk records it, and what it must agree with to go on.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "train/trainer.h"

namespace graft {

struct RunProgress {
  std::vector<EpochRecord> history;
  int best_epoch = 0;  ///< 0: none yet
  double best_accuracy = -1;
  double best_loss = 0;

  /// Appends, and says whether it is the best so far by better_epoch(). `annealed_on`: of the last
  /// epoch of a schedule that ends at a rate of nothing, the number of validation images, by which
  /// keeps_last_epoch() judges; else 0.
  bool add(const EpochRecord& record, size_t annealed_on = 0);
};

/// The images, their labels and splits, and the options that a resumed run cannot change.
class RunRecord {
 public:
  explicit RunRecord(const TrainJob& job);

  [[nodiscard]] nlohmann::json write(const RunProgress& progress, int64_t steps,
                                     int64_t without_moments = 0) const;
  /// Throws Error(input) where the record is of another run, or a field (also "steps") is missing
  /// or not of its kind.
  [[nodiscard]] RunProgress read(const nlohmann::json& record) const;

 private:
  std::string run_;
  nlohmann::json identity_;
  std::vector<std::string> earlier_hashes_;  // of the same data, as earlier versions made them
};

}  // namespace graft
