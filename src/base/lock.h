// Locks on files, which the system releases when a process ends, however it ends.
#pragma once

#include <chrono>
#include <filesystem>
#include <optional>
#include <string>

#include "base/descriptor.h"

namespace graft {

enum class LockState {
  locked,
  busy,         ///< another process, or another descriptor of this one, has it
  unsupported,  ///< the file system has no locks
};

/// Takes an exclusive lock (flock) on an open file, and tries for as long as `patience` says. It is
/// released by unlock(), and when the descriptor is closed.
LockState lock_exclusively(int fd, std::chrono::milliseconds patience = {});

void unlock(int fd);

/// Whether `path` names the file that is open as `fd`: what is locked may have been renamed or
/// removed meanwhile.
bool names_file(const std::filesystem::path& path, int fd);

/// A file that exists to be locked by one process at a time. Holds the lock until it is destroyed,
/// and then removes the file; after a kill the file stays, unlocked, and is taken over.
class LockFile {
 public:
  /// Null where another process holds the lock. Throws Error(io) where the file cannot be made.
  static std::optional<LockFile> acquire(const std::filesystem::path& path);
  /// Whether another process holds the lock at this moment. Makes no file.
  static bool is_held(const std::filesystem::path& path);
  /// What the holder wrote: its process and machine, as text; empty if unknown.
  static std::string holder(const std::filesystem::path& path);

  ~LockFile();
  LockFile(LockFile&&) noexcept = default;
  LockFile& operator=(LockFile&& other) noexcept;
  LockFile(const LockFile&) = delete;
  LockFile& operator=(const LockFile&) = delete;

  /// False where the file system has no locks: then nothing keeps others out.
  [[nodiscard]] bool effective() const { return effective_; }

 private:
  LockFile(std::filesystem::path path, Descriptor file, bool effective);

  std::filesystem::path path_;
  Descriptor file_;
  bool effective_;
};

}  // namespace graft
