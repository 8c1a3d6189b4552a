// A run folder belongs to one training at a time.
#pragma once

#include <filesystem>
#include <optional>

#include "base/lock.h"
#include "graft/context.h"
#include "graft/train.h"

namespace graft {

/// Holds the run folder for this process until it is destroyed; a kill releases it. What killed
/// processes left in the folder is removed. A folder that was made for the claim, and in which
/// nothing was written, is removed again.
class RunClaim {
 public:
  /// Makes the folder where it is new. Throws as check_run_folder() does, also where another
  /// process was faster since.
  RunClaim(const std::filesystem::path& folder, RunMode mode, const RunContext& context);
  ~RunClaim();
  RunClaim(const RunClaim&) = delete;
  RunClaim& operator=(const RunClaim&) = delete;

 private:
  std::filesystem::path folder_;
  bool made_ = false;
  std::optional<LockFile> lock_;
};

}  // namespace graft
