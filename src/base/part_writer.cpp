#include <fcntl.h>
#include <sys/stat.h>
#include <xxhash.h>

#include <cerrno>
#include <chrono>
#include <optional>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/lock.h"
#include "base/part_bytes.h"
#include "base/part_file.h"

namespace graft {
namespace {

// What a kill can lose, and what joining holds of each part: of VGG's pooled features some 100
// images, of its maps one.
constexpr size_t kChunkBytes = size_t{256} << 10U;
constexpr uint32_t kChunkRecords = 64;
// Whoever only looks whether a part is locked holds the lock for microseconds.
constexpr std::chrono::milliseconds kPatience{200};

std::string what_differs(const PartHead& mine, const PartHead& theirs) {
  if (mine.about != theirs.about) return different_options(mine.about, theirs.about);
  return "another list of images";
}

bool same_result(const PartHead& a, const PartHead& b) {
  return a.kind == b.kind && a.shard.index == b.shard.index && a.shard.count == b.shard.count &&
         a.images == b.images && a.list == b.list && a.about == b.about;
}

[[noreturn]] void fail_other(const fs::path& path, const PartHead& mine, const PartHead& theirs) {
  fail(ErrorKind::usage,
       "{}: there already, of {}; choose another folder, or --force to replace it", printable(path),
       what_differs(mine, theirs));
}

bool is_there(const fs::path& path) {
  std::error_code error;
  return fs::exists(fs::symlink_status(path, error));
}

void sync_folder(const fs::path& file) {
  const fs::path folder = file.has_parent_path() ? file.parent_path() : fs::path(".");
  const Descriptor fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.valid()) ::fsync(fd.get());
}

}  // namespace

PartWriter::PartWriter(std::filesystem::path path, const PartHead& head, bool replace,
                       const std::function<void(const PartRecord&)>& seen,
                       const std::function<void(const std::string&)>& on_note)
    : path_(std::move(path)), unfinished_(path_.native() + kUnfinished) {
  for (;;) {
    const Finished finished = look_at_finished(head, replace, on_note);
    complete_ = finished == Finished::whole;
    if (complete_) {
      ::unlink(unfinished_.c_str());  // of an earlier attempt
      read_back(path_, head, replace, seen);
      return;
    }
    open();
    if (finished == Finished::replaceable) {
      if (::rename(path_.c_str(), unfinished_.c_str()) != 0)
        fail(ErrorKind::io, "{}: cannot be replaced: {}", printable(path_),
             system_error_text(errno));
      open();
      break;
    }
    // Another process may have finished it before it was locked here.
    if (!is_there(path_)) break;
  }
  read_back(unfinished_, head, replace, seen);
  if (::ftruncate(file_.get(), static_cast<off_t>(end_)) != 0)
    fail(ErrorKind::io, "{}: cannot write: {}", printable(unfinished_), system_error_text(errno));
  if (end_ > 0) return;
  const std::string bytes = head_bytes(head);
  seed_ = XXH3_64bits(bytes.data(), bytes.size());
  write(bytes);
}

/// Opens and locks the unfinished file, which is made where there is none.
void PartWriter::open() {
  do {
    file_ = Descriptor(
        ::open(unfinished_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666));
    struct stat info {};
    if (!file_.valid() || ::fstat(file_.get(), &info) != 0 || !S_ISREG(info.st_mode))
      fail(ErrorKind::io, "{}: cannot write: {}; choose a folder that you can write to",
           printable(unfinished_), file_.valid() ? "no plain file" : system_error_text(errno));
    if (lock_exclusively(file_.get(), kPatience) == LockState::busy)
      throw PartTaken(
          ErrorKind::input,
          fmt::format(
              "{}: another process is writing this shard; give each worker a shard of its own",
              printable(unfinished_)));
    // Its last writer may have given it its name between our opening and locking it.
  } while (!names_file(unfinished_, file_.get()));
}

PartWriter::Finished PartWriter::look_at_finished(
    const PartHead& head, bool replace, const std::function<void(const std::string&)>& on_note) {
  if (!is_there(path_)) return Finished::absent;
  try {
    PartReader reader(path_);
    if (!same_result(head, reader.head())) {
      if (!replace) fail_other(path_, head, reader.head());
      return Finished::replaceable;
    }
    for (PartRecord record; reader.next(record);) continue;
    return Finished::whole;
  } catch (const Error& problem) {
    if (problem.kind() != ErrorKind::input) throw;
    on_note(fmt::format("{}: damaged; what is good of it stays, the rest is made again",
                        printable(path_)));
    return Finished::replaceable;
  }
}

/// Hands on what earlier processes wrote, and remembers where its last whole chunk ends.
void PartWriter::read_back(const fs::path& file, const PartHead& head, bool replace,
                           const std::function<void(const PartRecord&)>& seen) {
  std::optional<PartReader> reader;
  try {
    reader.emplace(file);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::input) throw;
    return;  // killed before it had written the head
  }
  if (!same_result(head, reader->head())) {
    if (!replace) fail_other(file, head, reader->head());
    return;
  }
  seed_ = reader->seed();
  end_ = reader->offset();
  const auto next = [&](PartRecord& record) {
    try {
      return reader->next(record);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::input) throw;
      return false;
    }
  };
  for (PartRecord record; next(record);) {
    end_ = reader->offset();
    records_ = reader->records();
    seen(record);
  }
}

void PartWriter::write(std::string_view bytes) {
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t put = ::pwrite(file_.get(), bytes.data() + done, bytes.size() - done,
                                 static_cast<off_t>(end_ + done));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0)
      fail(ErrorKind::io, "{}: cannot write: {}; started again, it goes on from here",
           printable(unfinished_), system_error_text(put < 0 ? errno : ENOSPC));
    done += static_cast<size_t>(put);
  }
  end_ += bytes.size();
}

void PartWriter::add(const PartRecord& record) {
  append_number<uint64_t>(waiting_, record.image);
  append_number(waiting_, static_cast<uint32_t>(record.path.size()));
  append_number(waiting_, static_cast<uint32_t>(record.content.size()));
  waiting_ += record.path;
  waiting_ += record.content;
  ++waiting_records_;
  if (waiting_.size() >= kChunkBytes || waiting_records_ >= kChunkRecords) write_chunk();
}

void PartWriter::write_chunk() {
  write(chunk_bytes(waiting_records_, waiting_, seed_, end_));
  records_ += waiting_records_;
  waiting_records_ = 0;
  waiting_.clear();
}

void PartWriter::flush() {
  if (waiting_records_ > 0) write_chunk();
}

void PartWriter::commit() {
  if (complete_) return;
  flush();
  std::string count;
  append_number(count, records_);
  write(chunk_bytes(0, count, seed_, end_));
  // Renamed while it is locked: nobody goes on with a file that is complete.
  if (::fsync(file_.get()) != 0 || ::rename(unfinished_.c_str(), path_.c_str()) != 0)
    fail(ErrorKind::io, "{}: cannot write: {}", printable(path_), system_error_text(errno));
  sync_folder(path_);
  complete_ = true;
}

}  // namespace graft
