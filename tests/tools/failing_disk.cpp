// A library to preload: the disk fails, or the process ends, at a chosen operation.
//
//   LD_PRELOAD=libfailing_disk.so GRAFT_DISK_ROOT=/tmp/x GRAFT_DISK_COUNTER=/tmp/n
//   [GRAFT_DISK_AT=17] [GRAFT_DISK_HOW=once|ever|exit] [GRAFT_DISK_ERRNO=28] graft …
//
// Counted are operations that change files below the root: opening for writing, writing, flushing,
// closing, syncing, truncating, renaming, linking, making folders. The count is kept in the first
// eight bytes of the counter's file, so that it goes on over exec; without GRAFT_DISK_AT operations
// are only counted.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

struct Plan {
  const char* root = std::getenv("GRAFT_DISK_ROOT");
  size_t root_length = root != nullptr ? std::strlen(root) : 0;
  std::atomic<uint64_t>* counter = nullptr;
  uint64_t at = 0;
  bool ever = false;
  bool exits = false;
  int error = ENOSPC;
};

template <typename Function>
Function next(const char* name) {
  return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

const Plan& plan() {
  static const Plan made = [] {
    Plan p;
    const char* counter = std::getenv("GRAFT_DISK_COUNTER");
    if (p.root == nullptr || counter == nullptr) return p;
    const int fd = next<int (*)(const char*, int, ...)>("open")(counter, O_RDWR | O_CLOEXEC);
    if (fd >= 0) {
      void* map = ::mmap(nullptr, sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
      if (map != MAP_FAILED) p.counter = static_cast<std::atomic<uint64_t>*>(map);
    }
    if (const char* at = std::getenv("GRAFT_DISK_AT")) p.at = std::strtoull(at, nullptr, 10);
    if (const char* how = std::getenv("GRAFT_DISK_HOW")) {
      p.ever = std::strcmp(how, "ever") == 0;
      p.exits = std::strcmp(how, "exit") == 0;
    }
    if (const char* error = std::getenv("GRAFT_DISK_ERRNO")) p.error = std::atoi(error);
    return p;
  }();
  return made;
}

/// Counts an operation; true where it is to fail, with errno set.
bool fails() {
  const Plan& p = plan();
  if (p.counter == nullptr) return false;
  const uint64_t number = p.counter->fetch_add(1) + 1;
  if (p.at == 0 || number < p.at || (number > p.at && !p.ever)) return false;
  if (p.exits) ::_exit(137);
  errno = p.error;
  return true;
}

bool below_root(const char* path) {
  const Plan& p = plan();
  return p.root != nullptr && path != nullptr && std::strncmp(path, p.root, p.root_length) == 0;
}

bool below_root(int fd) {
  if (plan().root == nullptr) return false;
  const int kept = errno;
  std::array<char, 64> link{};
  std::array<char, PATH_MAX> path{};
  std::snprintf(link.data(), link.size(), "/proc/self/fd/%d", fd);
  const bool found = ::readlink(link.data(), path.data(), path.size() - 1) > 0;
  errno = kept;
  return found && below_root(path.data());
}

bool changes(int flags) { return (flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)) != 0; }

}  // namespace

extern "C" {

#define GRAFT_OPEN(name)                                                      \
  int name(const char* path, int flags, ...) {                                \
    va_list list;                                                             \
    va_start(list, flags);                                                    \
    const mode_t mode = va_arg(list, mode_t);                                 \
    va_end(list);                                                             \
    if (below_root(path) && changes(flags) && fails()) return -1;             \
    return next<int (*)(const char*, int, mode_t)>(#name)(path, flags, mode); \
  }
GRAFT_OPEN(open)
GRAFT_OPEN(open64)
#undef GRAFT_OPEN

#define GRAFT_FD(type, name, parameters, arguments, fd) \
  type name parameters {                                \
    if (below_root(fd) && fails()) return -1;           \
    return next<type(*) parameters>(#name) arguments;   \
  }
GRAFT_FD(ssize_t, write, (int fd, const void* data, size_t size), (fd, data, size), fd)
GRAFT_FD(ssize_t, pwrite, (int fd, const void* data, size_t size, off_t at), (fd, data, size, at),
         fd)
GRAFT_FD(ssize_t, pwrite64, (int fd, const void* data, size_t size, off64_t at),
         (fd, data, size, at), fd)
GRAFT_FD(ssize_t, writev, (int fd, const iovec* parts, int count), (fd, parts, count), fd)
GRAFT_FD(ssize_t, pwritev, (int fd, const iovec* parts, int count, off_t at),
         (fd, parts, count, at), fd)
GRAFT_FD(int, fsync, (int fd), (fd), fd)
GRAFT_FD(int, fdatasync, (int fd), (fd), fd)
GRAFT_FD(int, ftruncate, (int fd, off_t size), (fd, size), fd)
GRAFT_FD(int, ftruncate64, (int fd, off64_t size), (fd, size), fd)
#undef GRAFT_FD

#define GRAFT_PATH(name, parameters, arguments, path) \
  int name parameters {                               \
    if (below_root(path) && fails()) return -1;       \
    return next<int(*) parameters>(#name) arguments;  \
  }
GRAFT_PATH(rename, (const char* from, const char* to), (from, to), to)
GRAFT_PATH(link, (const char* from, const char* to), (from, to), to)
GRAFT_PATH(mkdir, (const char* path, mode_t mode), (path, mode), path)
#undef GRAFT_PATH

size_t fwrite(const void* data, size_t size, size_t count, FILE* file) {
  if (below_root(::fileno(file)) && fails()) return 0;
  return next<size_t (*)(const void*, size_t, size_t, FILE*)>("fwrite")(data, size, count, file);
}

int fflush(FILE* file) {
  if (file != nullptr && below_root(::fileno(file)) && fails()) return EOF;
  return next<int (*)(FILE*)>("fflush")(file);
}

/// The file is closed all the same, as the real one does it.
int fclose(FILE* file) {
  const bool failing = below_root(::fileno(file)) && fails();
  const int kept = errno;
  const int status = next<int (*)(FILE*)>("fclose")(file);
  if (!failing) return status;
  errno = kept;
  return EOF;
}

}  // extern "C"
