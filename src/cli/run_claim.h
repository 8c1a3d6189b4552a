// A run folder belongs to one training at a time.
#pragma once

#include <filesystem>
#include <optional>

#include "base/lock.h"
#include "cli/train_options.h"

namespace graft::cli {

/// Where the run goes: the folder that is resumed, or --output, or a new name under runs/. Throws
/// Error where that cannot be: a run that is there already, one that another process is writing, a
/// folder that cannot be made. Makes nothing.
std::filesystem::path choose_run_folder(const TrainOptions& options);

/// Holds the run folder for this process until it is destroyed; a kill releases it. What killed
/// processes left in the folder is removed. A folder that was made for the claim, and in which
/// nothing was written, is removed again.
class RunClaim {
 public:
  /// Makes the folder where it is new. Throws Error where another process has it, or has made a run
  /// of it since choose_run_folder().
  explicit RunClaim(const TrainOptions& options);
  ~RunClaim();
  RunClaim(const RunClaim&) = delete;
  RunClaim& operator=(const RunClaim&) = delete;

  [[nodiscard]] const std::filesystem::path& folder() const { return folder_; }

 private:
  std::filesystem::path folder_;
  bool made_ = false;
  std::optional<LockFile> lock_;
};

}  // namespace graft::cli
