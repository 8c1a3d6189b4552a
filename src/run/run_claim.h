// A run folder belongs to one training at a time.
#pragma once

#include <filesystem>
#include <optional>

#include "base/lock.h"
#include "graft/context.h"

namespace graft {

enum class RunMode {
  fresh,    ///< a new folder, or one with nothing in it that would be lost
  replace,  ///< a run that is there loses its files
  resume,   ///< a run that is there goes on
};

/// Throws Error where a run cannot go there: a run that is there already, one that another process
/// is writing, a folder that cannot be made. Makes nothing.
void check_run_folder(const std::filesystem::path& folder, RunMode mode);

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
