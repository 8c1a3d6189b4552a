// Processes of a group that share out work through a folder that all of them can write to, with no
// network between them: each takes parts that nobody is at, until there are none.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/lock.h"
#include "graft/context.h"
#include "graft/group.h"

namespace graft {

/// Who is there is known by locks, which the system releases when a process dies, and who hangs by
/// its mark, which a process that does not hang touches every two seconds. Not thread-safe.
class GroupFolder {
 public:
  /// Makes the folder and waits: rank 0 until all processes have come, the others for it. `job`
  /// says what is to be done, in all processes alike. Throws Error(io) that names those that do not
  /// come, or where the file system has no locks; Error(input) in a process whose job is another
  /// than rank 0's.
  GroupFolder(std::filesystem::path folder, const GroupPlace& place, const std::string& job,
              const RunContext& context);

  [[nodiscard]] const std::filesystem::path& path() const { return folder_; }

  /// Calls `work(part)` for parts whose file is not there, those that are this rank's first; it
  /// throws PartTaken where another process is at the part. Returns the files of all parts, in rank
  /// 0 when all are there; in the others when nothing is left that nobody is at. Parts that were
  /// there before, rank 0 gives to `work` too, to be looked at. Throws Error(io) in rank 0 where
  /// all that is left is in the hands of processes that hang, and names them.
  std::vector<std::filesystem::path> share_out(
      uint32_t parts, const std::function<std::filesystem::path(uint32_t part)>& file_of,
      const std::function<void(uint32_t part)>& work);

  /// In rank 0: the result is made. Removes the folder with the parts whose names begin with
  /// `kind`, once the others have left it.
  void remove(const std::string& kind);

 private:
  [[nodiscard]] std::filesystem::path mark(int rank) const;
  void join();
  void wait_for_others();
  /// Throws where all that are still here hang.
  void look_for_hung(size_t parts_left);
  void wait_for_first();

  std::filesystem::path folder_;
  GroupPlace place_;
  std::string job_;
  RunContext context_;
  std::optional<LockFile> here_;  // this process
  std::optional<LockFile> all_;   // rank 0's, once it has seen all
  std::jthread beat_;             // touches this process' mark
  struct Beat {
    std::filesystem::file_time_type touched{};
    std::chrono::steady_clock::time_point seen{};
  };
  std::vector<Beat> beats_;  // of each rank, as rank 0 last saw it
};

/// Into how many parts a group's work on so many images is cut: many more than there are processes,
/// so that none waits for long at the end, but none smaller than a batch.
uint32_t group_parts(size_t images, int processes);

/// Hands on messages, but no progress: of the parts' own, while that of the whole is shown.
class WithoutProgress : public Reporter {
 public:
  explicit WithoutProgress(Reporter* to) : to_(to) {}
  void message(Severity severity, std::string_view text) override {
    if (to_ != nullptr) to_->message(severity, text);
  }

 private:
  Reporter* to_;
};

}  // namespace graft
