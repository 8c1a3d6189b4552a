// Event files that TensorBoard reads: the learning curves of a run, and its confusion matrix.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "graft/image.h"
#include "graft/train.h"
#include "report/metrics.h"

namespace graft {

/// Appends records to <folder>/events.out.tfevents.<seconds>.<host>.<process>, a TFRecord file:
/// length, masked CRC-32C, data, masked CRC-32C. Every write is flushed. Throws Error(io).
class EventFile {
 public:
  explicit EventFile(const std::filesystem::path& folder);
  ~EventFile();
  EventFile(const EventFile&) = delete;
  EventFile& operator=(const EventFile&) = delete;

  void add_scalars(int64_t step, const std::vector<std::pair<std::string, double>>& scalars);
  void add_image(int64_t step, const std::string& tag, const Image& image);
  /// Later events of other files in the folder are void from `step` on: a run was resumed.
  void add_restart(int64_t step);

 private:
  void write(const std::string& event);

  std::filesystem::path path_;
  std::FILE* file_ = nullptr;
};

/// A run's epochs as scalars: loss and accuracy of training and validation, learning rate.
class TensorBoard : public TrainObserver {
 public:
  explicit TensorBoard(const std::filesystem::path& folder) : file_(folder) {}

  void past_epoch(const EpochRecord& record, bool best) override;
  void begin(int epochs) override;
  void epoch(const EpochRecord& record, bool best) override;
  /// At the end: the confusion matrix.
  void confusion(const std::string& split, const Metrics& metrics);

 private:
  EventFile file_;
  int last_ = 0;
  bool resumed_ = false;
};

}  // namespace graft
