// Images as they come into a folder.
//
//   graft::FolderWatch watch("inbox", {}, context);
//   while (!context.stop.stop_requested())
//     for (const auto& path : watch.next(64)) …
#pragma once

#include <chrono>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <vector>

#include "graft/context.h"

#pragma GCC visibility push(default)
namespace graft {

struct FolderWatchOptions {
  /// To look through the folder that often, as network drives need, whose changes by other machines
  /// nobody tells; 0: the system tells, where it can.
  std::chrono::milliseconds every{0};
  /// Folders below it whose images do not count.
  std::vector<std::filesystem::path> excluded;
};

/// A folder and those below it, also those that come later. Hidden files and folders, and links to
/// folders, are passed over. Not thread-safe.
class FolderWatch {
 public:
  /// What is there from this moment on counts as not new. Where the system cannot tell (its limit
  /// of watches, a network drive) the folder is looked through every two seconds, and a note says
  /// so. Throws Error(input) for what is no folder, Error(io).
  explicit FolderWatch(const std::filesystem::path& folder, const FolderWatchOptions& options = {},
                       const RunContext& context = {});
  ~FolderWatch();
  FolderWatch(FolderWatch&&) noexcept;
  FolderWatch& operator=(FolderWatch&&) noexcept;

  /// Waits for images, and returns at most `most` of them in the order in which they came; nothing
  /// where the context says stop. A file counts when it is closed after writing or moved in; where
  /// that cannot be known, when it has stayed as it is for a second. One that is written again
  /// counts again. Throws Error(io) where the folder has gone.
  std::vector<std::filesystem::path> next(size_t most);

  /// These are known as they are: next() returns one only after it has changed. For images that
  /// were there, or came, before the first next().
  void known(const std::vector<std::filesystem::path>& images);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace graft
#pragma GCC visibility pop
