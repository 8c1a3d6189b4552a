#include "base/file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <utility>

#include "base/descriptor.h"
#include "base/fail.h"
#include "base/limits.h"
#include "base/lock.h"
#include "base/utf8.h"

namespace graft {
namespace {

/// The system would take the part before a NUL for the path.
void refuse_nul(const fs::path& path) {
  if (path.native().find('\0') != std::string::npos)
    fail(ErrorKind::input, "{}: a path that holds a NUL byte", printable(path));
}

size_t regular_file_size(int fd, const fs::path& path) {
  struct stat info {};
  if (::fstat(fd, &info) != 0)
    fail(ErrorKind::io, "{}: cannot read: {}", printable(path), system_error_text(errno));
  if (!S_ISREG(info.st_mode))
    fail(ErrorKind::io, "{}: not a regular file; name a file", printable(path));
  return static_cast<size_t>(info.st_size);
}

Descriptor try_to_open(const fs::path& path) {
  refuse_nul(path);
  // O_NONBLOCK: opening a named pipe must be an error below, not a wait for a writer.
  return Descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
}

Descriptor open_for_reading(const fs::path& path) {
  Descriptor fd = try_to_open(path);
  if (!fd.valid())
    fail(ErrorKind::io, "{}: cannot open: {}", printable(path), system_error_text(errno));
  return fd;
}

std::atomic<ReaderInsideFiles> reader_inside_files = nullptr;

template <typename Container>
Container read_all(const fs::path& path, uint64_t most) {
  const Descriptor fd = try_to_open(path);
  if (!fd.valid()) {
    const int error = errno;
    const ReaderInsideFiles reader = reader_inside_files;
    std::vector<std::byte> inside;
    if (error == ENOTDIR && reader != nullptr && reader(path, most, inside)) {
      const auto* first = reinterpret_cast<const typename Container::value_type*>(inside.data());
      return Container(first, first + inside.size());
    }
    fail(ErrorKind::io, "{}: cannot open: {}", printable(path), system_error_text(error));
  }
  const size_t size = regular_file_size(fd.get(), path);
  if (size > most)
    fail(ErrorKind::input, "{}: too large: {} bytes, and at most {} are read", printable(path),
         size, most);
  Container content(size, typename Container::value_type{});
  size_t done = 0;
  while (done < content.size()) {
    const ssize_t got = ::read(fd.get(), content.data() + done, content.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0)
      fail(ErrorKind::io, "{}: cannot read: {}", printable(path), system_error_text(errno));
    if (got == 0) break;  // the file shrank meanwhile
    done += static_cast<size_t>(got);
  }
  content.resize(done);
  return content;
}

fs::path folder_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

void sync_folder(const fs::path& folder) {
  const Descriptor fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() >= 0) ::fsync(fd.get());
}

// Temporary files: "graft-", 16 hex digits, and for those that are not to be used again the number
// of their process; then ".tmp".
constexpr std::string_view kTemporaryStart = "graft-";
constexpr std::string_view kTemporaryEnd = ".tmp";
constexpr size_t kTemporaryDigits = 16;
// A lock that is only tried is held for microseconds.
constexpr std::chrono::seconds kPatience{2};
// Reading that many names takes milliseconds, like the fsync that follows. In a folder with more,
// what a kill left behind may stay until a run claims the folder or a person clears it.
constexpr size_t kMostNames = 20'000;

/// Short whatever the name, which may be as long as names can be.
fs::path temporary_beside(const fs::path& path, std::string_view more = "") {
  const std::string name = path.filename().string();
  return path.parent_path() / fmt::format("{}{:016x}{}{}", kTemporaryStart,
                                          XXH3_64bits(name.data(), name.size()), more,
                                          kTemporaryEnd);
}

bool is_temporary(const std::string& name) {
  if (!name.starts_with(kTemporaryStart) || !name.ends_with(kTemporaryEnd) ||
      name.size() < kTemporaryStart.size() + kTemporaryDigits + kTemporaryEnd.size())
    return false;
  const auto digits = std::string_view(name).substr(kTemporaryStart.size(), kTemporaryDigits);
  return digits.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

/// Removes a temporary file that nobody holds the lock of. False where somebody does, or where that
/// cannot be known. The file itself is left alone: it may have further names.
bool remove_unlocked(const fs::path& path) {
  const Descriptor file(::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  return file.valid() && lock_exclusively(file.get()) == LockState::locked &&
         names_file(path, file.get()) && ::unlink(path.c_str()) == 0;
}

/// Makes an empty temporary file and locks it; `path` becomes its name. Invalid, and errno, if it
/// cannot be made.
Descriptor make_temporary(const fs::path& target, fs::path& path) {
  constexpr int kAttempts = 100;
  path = temporary_beside(target);
  for (int i = 0; i < kAttempts; ++i) {
    Descriptor file(
        ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666));
    if (file.valid()) {
      const LockState state = lock_exclusively(file.get(), kPatience);
      // Else it was taken for a leftover between our making and locking it: once more.
      if (state == LockState::unsupported ||
          (state == LockState::locked && names_file(path, file.get())))
        return file;
    } else if (errno != EEXIST) {
      return file;
    } else if (!remove_unlocked(path)) {
      // Another process is writing the same file: whoever ends last has the name.
      path = temporary_beside(target, fmt::format("-{}-{}", ::getpid(), i));
    }
  }
  errno = EEXIST;
  return {};
}

}  // namespace

void set_reader_inside_files(ReaderInsideFiles reader) { reader_inside_files = reader; }

std::vector<std::byte> read_file(const fs::path& path, uint64_t most) {
  return read_all<std::vector<std::byte>>(path, most);
}

std::string read_text_file(const fs::path& path, uint64_t most) {
  return read_all<std::string>(path, most);
}

MappedFile::MappedFile(const fs::path& path) {
  const Descriptor fd = open_for_reading(path);
  map(fd.get(), path);
}

MappedFile MappedFile::below(const fs::path& folder, const fs::path& relative) {
  const fs::path path = folder / relative;
  refuse_nul(path);
  const auto leads_out = [](const fs::path& part) { return part.empty() || part == ".."; };
  if (relative.empty() || relative.is_absolute() ||
      std::any_of(relative.begin(), relative.end(), leads_out))
    fail(ErrorKind::input, "{}: is not below {}, and nothing else is read", printable(relative),
         printable(folder));
  // One part after the other, so that none is exchanged for a link between a check and the opening.
  Descriptor at(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  for (auto part = relative.begin(); at.valid() && part != relative.end(); ++part) {
    const int kind = std::next(part) == relative.end() ? O_NONBLOCK : O_DIRECTORY;
    at = Descriptor(::openat(at.get(), part->c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC | kind));
  }
  // ENOTDIR: a folder on the way is one.
  if (!at.valid() && (errno == ELOOP || errno == EMLINK || errno == ENOTDIR))
    fail(ErrorKind::input,
         "{}: a symbolic link, or beneath one, which is not followed; put the file itself there",
         printable(path));
  if (!at.valid())
    fail(ErrorKind::io, "{}: cannot open: {}", printable(path), system_error_text(errno));
  MappedFile out;
  out.map(at.get(), path);
  return out;
}

void MappedFile::map(int fd, const fs::path& path) {
  size_ = regular_file_size(fd, path);
  if (size_ == 0) return;
  void* map = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0);
  if (map == MAP_FAILED)
    fail(ErrorKind::io, "{}: cannot map into memory: {}", printable(path),
         system_error_text(errno));
  data_ = static_cast<const std::byte*>(map);
}

MappedFile::~MappedFile() {
  // munmap's signature lacks const; the map itself is read-only.
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

namespace {

/// Where a link leads, also to what is not there yet: the link stays, and its target is replaced.
fs::path behind_links(fs::path path) {
  constexpr int kMostLinks = 40;  // as many as Linux follows
  std::error_code error;
  for (int i = 0; fs::is_symlink(path, error); ++i) {
    const fs::path to = fs::read_symlink(path, error);
    if (error || i == kMostLinks)
      fail(ErrorKind::io, "{}: a link that leads nowhere; remove it, or choose another name",
           printable(path));
    path = to.is_absolute() ? to : path.parent_path() / to;
  }
  return path;
}

}  // namespace

AtomicFile::AtomicFile(fs::path path) : path_(behind_links(std::move(path))) {
  refuse_nul(path_);
  std::error_code none;
  const fs::file_status there = fs::status(path_, none);
  if (fs::is_directory(there))
    fail(ErrorKind::io, "{}: is a folder; name a file, in it or elsewhere", printable(path_));
  if (fs::exists(there) && !fs::is_regular_file(there))
    fail(ErrorKind::io,
         "{}: is no file but a device, pipe or socket, which would be replaced; "
         "choose another name",
         printable(path_));
  remove_leftovers(folder_of(path_), kMostNames);
  Descriptor file = make_temporary(path_, temporary_);
  if (file.valid()) file_ = ::fdopen(file.get(), "wb");
  if (file_ != nullptr) {
    static_cast<void>(file.release());
    return;
  }
  const int error = errno;
  if (file.valid()) ::unlink(temporary_.c_str());
  fail(ErrorKind::io, "{}: cannot write: {}; choose a folder that you can write to",
       printable(path_), system_error_text(error));
}

AtomicFile::~AtomicFile() {
  // Removed while it is locked: afterwards the name may be another process's.
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
  if (file_ != nullptr) std::fclose(file_);
}

void AtomicFile::fail_write() const {
  fail(ErrorKind::io, "{}: writing failed: {}; nothing was replaced", printable(path_),
       system_error_text(errno));
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  if (bytes.empty()) return;  // fwrite may not be given a null pointer
  if (std::fwrite(bytes.data(), 1, bytes.size(), file_) != bytes.size()) fail_write();
}

void AtomicFile::write(std::string_view text) { write(std::as_bytes(std::span(text))); }

void AtomicFile::rewrite_start(std::string_view text) {
  if (std::fseek(file_, 0, SEEK_SET) != 0) fail_write();
  write(text);
}

void AtomicFile::flush() {
  if (std::fflush(file_) != 0) fail_write();
  // Readers of HDF5 files take a shared lock; that nobody else gets an exclusive one still says
  // that the file is no leftover.
  ::flock(::fileno(file_), LOCK_SH);
}

void AtomicFile::commit() {
  // Renamed while it is locked, and closed afterwards: nothing is lost by closing what is synced.
  if (std::fflush(file_) != 0 || ::fsync(::fileno(file_)) != 0 ||
      ::rename(temporary_.c_str(), path_.c_str()) != 0)
    fail_write();
  temporary_.clear();
  std::fclose(std::exchange(file_, nullptr));
  sync_folder(folder_of(path_));
}

void write_file_atomic(const fs::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

void require_reachable(const fs::path& path) {
  std::error_code error;
  static_cast<void>(fs::status(path, error));
  if (error == std::errc::permission_denied)
    fail(ErrorKind::io, "{}: {}: you may not enter a folder on the way to it; ask its owner",
         printable(path), error.message());
}

fs::path whole_path(const fs::path& path) {
  std::error_code error;
  fs::path canonical = fs::weakly_canonical(path, error);
  return error ? fs::absolute(path).lexically_normal() : canonical;
}

void link_atomic(const fs::path& source, const fs::path& target) {
  const fs::path temporary = temporary_beside(target, fmt::format("-{}-link", ::getpid()));
  // A lock on the one file that both names are of says that the further one is no leftover.
  const Descriptor file(open_for_reading(source));
  lock_exclusively(file.get(), kPatience);
  ::unlink(temporary.c_str());
  if (::link(source.c_str(), temporary.c_str()) == 0) {
    const int done = ::rename(temporary.c_str(), target.c_str());
    const int error = errno;
    ::unlink(temporary.c_str());  // rename leaves both names where they are of one file
    if (done != 0)
      fail(ErrorKind::io, "{}: cannot be written: {}", printable(target), system_error_text(error));
    return;
  }
  const MappedFile content(source);
  AtomicFile copy(target);
  copy.write(content.bytes());
  copy.commit();
}

void remove_leftovers(const fs::path& folder, size_t most) {
  std::error_code error;
  size_t seen = 0;
  for (fs::directory_iterator it(folder, error), end; !error && it != end && seen++ < most;
       it.increment(error))
    if (is_temporary(it->path().filename().string())) remove_unlocked(it->path());
}

bool file_begins_with(const fs::path& file, std::string_view text) {
  std::error_code error;
  if (!fs::is_regular_file(file, error)) return false;  // a pipe would be waited for
  std::ifstream stream(file, std::ios::binary);
  std::string start(text.size(), '\0');
  return static_cast<bool>(stream.read(start.data(), static_cast<std::streamsize>(start.size()))) &&
         start == text;
}

void make_folder(const fs::path& path) {
  refuse_nul(path);
  std::error_code error;
  fs::create_directories(path, error);
  if (error)
    fail(ErrorKind::io, "{}: cannot make this folder: {}", printable(path), error.message());
}

fs::path default_cache_folder() {
  // The XDG Base Directory specification: relative values are to be ignored.
  if (const char* xdg = std::getenv("XDG_CACHE_HOME"); xdg != nullptr && xdg[0] == '/')
    return fs::path(xdg) / "graft";
  if (const char* home = std::getenv("HOME"); home != nullptr && home[0] != '\0')
    return fs::path(home) / ".cache" / "graft";
  return fs::temp_directory_path() / "graft-cache";
}

std::string printable(const fs::path& path) {
  std::string_view rest = path.native();
  std::string out;
  while (!rest.empty()) {
    const std::string_view before = rest;
    const int32_t c = take_code_point(rest);
    if (c < 0) rest.remove_prefix(1);
    if (c < 0 || breaks_a_line(c))
      out += '?';
    else
      out += before.substr(0, before.size() - rest.size());
  }
  return out;
}

bool same_file(const fs::path& a, const fs::path& b) {
  std::error_code error;
  return fs::weakly_canonical(a, error) == fs::weakly_canonical(b, error);
}

}  // namespace graft
