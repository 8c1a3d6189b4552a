#include "run/run_claim.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string>
#include <vector>

#include "base/fail.h"
#include "base/file.h"
#include "base/limits.h"
#include "run/run_config.h"
#include "run/run_folder.h"

namespace graft {
namespace {

constexpr const char* kLock = ".lock";

[[noreturn]] void refuse_in_use(const fs::path& folder) {
  const std::string holder = LockFile::holder(folder / kLock);
  fail(ErrorKind::io,
       "{}: another training is writing this run{}; wait for its end, or choose "
       "another folder",
       printable(folder), holder.empty() ? "" : " (" + holder + ")");
}

[[noreturn]] void refuse_existing(const fs::path& folder) {
  fail(ErrorKind::usage,
       "{}: this run exists already, or the folder holds other files; choose another "
       "folder, `resume` to go on with a run there, or `force` to replace it",
       printable(folder));
}

/// Whether a file of a run's folder is there, and not the run's.
bool is_foreign(const fs::path& file, std::string_view start) {
  std::error_code error;
  return fs::exists(fs::symlink_status(file, error)) && !file_begins_with(file, start);
}

/// What a run writes before its first epoch: nothing is lost where a run that never came so far is
/// begun again.
bool is_beginning(const fs::path& path) {
  const std::string name = path.filename().string();
  std::error_code error;
  if (name == run_files::kConfig) return !is_foreign(path, kConfigStart);
  if (name == run_files::kSplit) return !is_foreign(path, "path,label,split");
  if (name == run_files::kTimes) return !is_foreign(path, kTimesStart);
  if (name == run_files::kSkipped) return !is_foreign(path, "path,label,split,why\n");
  // Event files are those of any program, but a run has written its options before.
  if (name.starts_with(run_files::kEvents))
    return file_begins_with(path.parent_path() / run_files::kConfig, kConfigStart);
  return name == kLock || (name == run_files::kCheckpoints && fs::is_empty(path, error) && !error);
}

/// Whether there is anything in a folder that another run would destroy.
bool holds_something(const fs::path& folder) {
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    if (!is_beginning(it->path())) return true;
  return static_cast<bool>(error);
}

/// Fails now, and not after an hour, if the run folder cannot be made.
void check_writable(const fs::path& folder) {
  fs::path at = fs::absolute(folder).lexically_normal();
  std::error_code error;
  while (!fs::exists(at, error) && at.has_relative_path()) at = at.parent_path();
  if (::access(at.c_str(), W_OK | X_OK) == 0) return;
  if (at == fs::absolute(folder).lexically_normal())
    fail(ErrorKind::io, "{}: you may not write in this run folder; ask its owner, or copy it",
         printable(folder));
  fail(ErrorKind::io,
       "{}: cannot make this run folder: {} is not writable; choose another "
       "`output`",
       printable(folder), printable(at));
}

/// Makes the folder itself; false if it is there.
bool make_new_folder(const fs::path& folder) {
  if (folder.has_parent_path()) make_folder(folder.parent_path());
  if (::mkdir(folder.c_str(), 0777) == 0) return true;
  if (errno != EEXIST)
    fail(ErrorKind::io, "{}: cannot make this folder: {}", printable(folder),
         system_error_text(errno));
  return false;
}

/// What versions before this one left when they were killed: NAME.PROCESS.tmp and NAME.tmp beside
/// the files of a run. Nobody else writes there while the run is ours.
void remove_earlier_leftovers(const fs::path& folder) {
  constexpr std::array kExtensions = {".safetensors", ".csv", ".json", ".toml", ".html", ".svg"};
  std::error_code error;
  std::vector<fs::path> found;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    if (it->path().extension() != ".tmp") continue;
    fs::path name = it->path().stem();
    const std::string number = name.extension().string();
    if (number.size() > 1 && number.find_first_not_of("0123456789", 1) == std::string::npos)
      name = name.stem();
    if (std::find(kExtensions.begin(), kExtensions.end(), name.extension()) != kExtensions.end())
      found.push_back(it->path());
  }
  for (const fs::path& path : found) fs::remove(path, error);
}

}  // namespace

void check_run_folder(const fs::path& folder, RunMode mode) {
  if (folder.empty()) fail(ErrorKind::usage, "a run folder without a name");
  std::error_code error;
  if (fs::exists(folder, error) && !fs::is_directory(folder, error))
    fail(ErrorKind::io, "{}: is a file; `output` names a folder", printable(folder));
  if (LockFile::is_held(folder / kLock)) refuse_in_use(folder);
  if (mode == RunMode::fresh && fs::exists(folder, error) && holds_something(folder))
    refuse_existing(folder);
  check_writable(folder);
}

RunClaim::RunClaim(const fs::path& folder, RunMode mode, const RunContext& context)
    : folder_(folder) {
  check_run_folder(folder, mode);
  made_ = make_new_folder(folder_);
  lock_ = LockFile::acquire(folder_ / kLock);
  if (!lock_) refuse_in_use(folder_);
  if (!lock_->effective())
    context.tell(
        Severity::warning,
        fmt::format("{}: this file system has no locks, so nothing keeps a second training "
                    "out of this run",
                    printable(folder_)));
  if (!made_ && mode == RunMode::fresh && holds_something(folder_)) refuse_existing(folder_);
  for (const fs::path& where : {folder_, folder_ / run_files::kCheckpoints}) {
    remove_leftovers(where);
    remove_earlier_leftovers(where);
  }
}

RunClaim::~RunClaim() {
  lock_.reset();
  if (made_) ::rmdir(folder_.c_str());  // only where it is empty
}

}  // namespace graft
