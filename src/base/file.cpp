#include "base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "graft/error.h"

namespace graft {
namespace {

/// A file descriptor that closes itself.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  [[nodiscard]] int get() const { return fd_; }

 private:
  int fd_;
};

/// The system would take the part before a NUL for the path.
void refuse_nul(const fs::path& path) {
  if (path.native().find('\0') != std::string::npos)
    fail(ErrorKind::input, "{}: a path that holds a NUL byte", printable(path));
}

size_t regular_file_size(int fd, const fs::path& path) {
  struct stat info {};
  if (::fstat(fd, &info) != 0)
    fail(ErrorKind::io, "{}: cannot read: {}", printable(path), std::strerror(errno));
  if (!S_ISREG(info.st_mode))
    fail(ErrorKind::io, "{}: not a regular file; name a file", printable(path));
  return static_cast<size_t>(info.st_size);
}

int open_for_reading(const fs::path& path) {
  refuse_nul(path);
  // O_NONBLOCK: opening a named pipe must be an error below, not a wait for a writer.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) fail(ErrorKind::io, "{}: cannot open: {}", printable(path), std::strerror(errno));
  return fd;
}

template <typename Container>
Container read_all(const fs::path& path) {
  const Descriptor fd(open_for_reading(path));
  Container content(regular_file_size(fd.get(), path), typename Container::value_type{});
  size_t done = 0;
  while (done < content.size()) {
    const ssize_t got = ::read(fd.get(), content.data() + done, content.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail(ErrorKind::io, "{}: cannot read: {}", printable(path), std::strerror(errno));
    if (got == 0) break;  // the file shrank meanwhile
    done += static_cast<size_t>(got);
  }
  content.resize(done);
  return content;
}

void sync_folder(const fs::path& folder) {
  const Descriptor fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() >= 0) ::fsync(fd.get());
}

}  // namespace

std::vector<std::byte> read_file(const fs::path& path) {
  return read_all<std::vector<std::byte>>(path);
}

std::string read_text_file(const fs::path& path) { return read_all<std::string>(path); }

MappedFile::MappedFile(const fs::path& path) {
  const Descriptor fd(open_for_reading(path));
  size_ = regular_file_size(fd.get(), path);
  if (size_ == 0) return;
  void* map = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (map == MAP_FAILED)
    fail(ErrorKind::io, "{}: cannot map into memory: {}", printable(path), std::strerror(errno));
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

AtomicFile::AtomicFile(fs::path path) : path_(std::move(path)) {
  refuse_nul(path_);
  temporary_ = path_;
  temporary_ += fmt::format(".{}.tmp", ::getpid());
  const int fd = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0)
    fail(ErrorKind::io, "{}: cannot write: {}; choose a folder that you can write to",
         printable(path_), std::strerror(errno));
  file_ = ::fdopen(fd, "wb");
}

AtomicFile::~AtomicFile() {
  if (file_ != nullptr) std::fclose(file_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::fail_write() const {
  fail(ErrorKind::io, "{}: writing failed: {}; nothing was replaced", printable(path_),
       std::strerror(errno));
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

void AtomicFile::commit() {
  if (std::fflush(file_) != 0 || ::fsync(::fileno(file_)) != 0) fail_write();
  const int closed = std::fclose(std::exchange(file_, nullptr));
  if (closed != 0 || ::rename(temporary_.c_str(), path_.c_str()) != 0) fail_write();
  temporary_.clear();
  sync_folder(path_.has_parent_path() ? path_.parent_path() : fs::path("."));
}

void write_file_atomic(const fs::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
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
  const std::string& raw = path.native();
  std::string out;
  for (size_t i = 0; i < raw.size();) {
    const auto byte = static_cast<unsigned char>(raw[i]);
    const size_t length = byte < 0x80   ? 1
                          : byte < 0xC2 ? 0
                          : byte < 0xE0 ? 2
                          : byte < 0xF0 ? 3
                          : byte < 0xF5 ? 4
                                        : 0;
    bool valid = length > 0 && i + length <= raw.size() && byte >= 0x20 && byte != 0x7F;
    for (size_t k = 1; valid && k < length; ++k)
      valid = (static_cast<unsigned char>(raw[i + k]) & 0xC0U) == 0x80U;
    if (valid) {
      out.append(raw, i, length);
      i += length;
    } else {
      out += '?';
      ++i;
    }
  }
  return out;
}

}  // namespace graft
