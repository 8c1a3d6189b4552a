// What training tells whoever watches it.
#pragma once

#include <cmath>
#include <cstddef>

namespace graft {

/// One line of history.csv.
struct EpochRecord {
  int epoch = 0;
  double loss = 0;
  double accuracy = 0;
  double val_loss = 0;
  double val_accuracy = 0;
  double learning_rate = 0;  ///< of the last step
  double seconds = 0;
};

/// Whether `epoch` ranks before `other`: the higher validation accuracy, of equals the lower
/// validation loss, of equals neither. An epoch with a figure that is not finite ranks behind all
/// others. The only place that ranks epochs (docs/decisions/0003-best-epoch.md).
inline bool better_epoch(const EpochRecord& epoch, const EpochRecord& other) {
  const auto finite = [](const EpochRecord& e) {
    return std::isfinite(e.val_accuracy) && std::isfinite(e.val_loss);
  };
  if (!finite(epoch) || !finite(other)) return finite(epoch) && !finite(other);
  if (epoch.val_accuracy != other.val_accuracy) return epoch.val_accuracy > other.val_accuracy;
  return epoch.val_loss < other.val_loss;
}

/// Where training is within an epoch.
struct EpochProgress {
  int epoch = 0;   ///< from 1
  int epochs = 0;  ///< at most
  size_t done = 0;
  size_t images = 0;  ///< of an epoch
  double loss = 0;    ///< mean so far
  double accuracy = 0;
};

/// All calls come from the training thread. They should return quickly.
class TrainObserver {
 public:
  TrainObserver() = default;
  virtual ~TrainObserver() = default;
  TrainObserver(const TrainObserver&) = delete;
  TrainObserver& operator=(const TrainObserver&) = delete;

  /// An epoch that an earlier part of the run made (--resume); before everything else. `best`:
  /// whether it is the best of all of them.
  virtual void past_epoch(const EpochRecord& record, bool best) { (void)record, (void)best; }
  /// Pictures are read and training begins; again for each phase.
  virtual void begin(int epochs) { (void)epochs; }
  virtual void step(const EpochProgress& progress) { (void)progress; }
  /// `best`: whether it is better than all before it.
  virtual void epoch(const EpochRecord& record, bool best) { (void)record, (void)best; }
};

}  // namespace graft
