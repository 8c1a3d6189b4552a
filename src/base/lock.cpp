#include "base/lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <thread>

#include "base/fail.h"
#include "base/file.h"
#include "base/limits.h"

namespace graft {
namespace {

constexpr std::chrono::milliseconds kPause{5};

std::string this_process() {
  std::array<char, 256> host{};
  if (::gethostname(host.data(), host.size() - 1) != 0) host[0] = '\0';
  return fmt::format("process {} on {}", ::getpid(), host.data());
}

}  // namespace

LockState lock_exclusively(int fd, std::chrono::milliseconds patience) {
  const auto end = std::chrono::steady_clock::now() + patience;
  while (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK) return LockState::unsupported;
    if (std::chrono::steady_clock::now() >= end) return LockState::busy;
    std::this_thread::sleep_for(kPause);
  }
  return LockState::locked;
}

void unlock(int fd) { ::flock(fd, LOCK_UN); }

bool names_file(const std::filesystem::path& path, int fd) {
  struct stat named {};
  struct stat open {};
  return ::stat(path.c_str(), &named) == 0 && ::fstat(fd, &open) == 0 &&
         named.st_dev == open.st_dev && named.st_ino == open.st_ino;
}

std::optional<LockFile> LockFile::acquire(const std::filesystem::path& path) {
  while (true) {
    Descriptor file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666));
    if (!file.valid())
      fail(ErrorKind::io, "{}: cannot write: {}; choose a folder that you can write to",
           printable(path), system_error_text(errno));
    const LockState state = lock_exclusively(file.get());
    if (state == LockState::busy) return std::nullopt;
    // Its last holder may have removed it between our opening and locking it.
    if (state == LockState::locked && !names_file(path, file.get())) continue;
    return LockFile(path, std::move(file), state == LockState::locked);
  }
}

bool LockFile::is_held(const std::filesystem::path& path) {
  const Descriptor file(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  return file.valid() && lock_exclusively(file.get()) == LockState::busy;
}

std::string LockFile::holder(const std::filesystem::path& path) {
  try {
    const std::string text = read_text_file(path);
    return printable(text.substr(0, text.find('\n')).substr(0, 300));
  } catch (const Error&) {
    return {};
  }
}

LockFile::LockFile(std::filesystem::path path, Descriptor file, bool effective)
    : path_(std::move(path)), file_(std::move(file)), effective_(effective) {
  // Only for messages: a full disk is no reason to refuse.
  const std::string text = this_process() + "\n";
  if (::ftruncate(file_.get(), 0) == 0)
    static_cast<void>(::pwrite(file_.get(), text.data(), text.size(), 0) + 0);
}

LockFile& LockFile::operator=(LockFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(file_, other.file_);
  std::swap(effective_, other.effective_);
  return *this;
}

LockFile::~LockFile() {
  if (file_.valid()) ::unlink(path_.c_str());
}

}  // namespace graft
