#include "weights/h5_process.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "weights/zip_file.h"

namespace graft {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr const char* kProgram = "graft-read-h5";
// A program that computes without end is stopped by its limit on processor time (h5/confine.cpp).
// This one is for whatever else could keep it, on a machine that is busy or reads from a slow disk.
constexpr seconds kLeastPatience{9};
constexpr uint64_t kBytesPerSecond = uint64_t{1} << 20U;
constexpr milliseconds kLookForSignals{100};

bool is_executable(const fs::path& file) { return ::access(file.c_str(), X_OK) == 0; }

/// The program beside this one as it is built and as it is installed, or in $GRAFT_LIBEXEC; for
/// programs of others that use the library, where Graft is installed.
fs::path find_program() {
  std::vector<fs::path> folders;
  if (const char* named = std::getenv("GRAFT_LIBEXEC"); named != nullptr && named[0] != '\0')
    folders.emplace_back(named);
  std::error_code error;
  const fs::path here = fs::read_symlink("/proc/self/exe", error).parent_path();
  folders.push_back(here);
  folders.push_back(here.parent_path() / "libexec" / "graft");
  // Beside the library that this is in: PREFIX/lib, or PREFIX/lib/<architecture>.
  Dl_info library{};
  if (::dladdr(reinterpret_cast<const void*>(&is_executable), &library) != 0 &&
      library.dli_fname != nullptr) {
    const fs::path folder = fs::weakly_canonical(library.dli_fname, error).parent_path();
    folders.push_back(folder.parent_path() / "libexec" / "graft");
    folders.push_back(folder.parent_path().parent_path() / "libexec" / "graft");
  }
  folders.emplace_back(GRAFT_LIBEXEC);
  for (const fs::path& folder : folders)
    if (is_executable(folder / kProgram)) return folder / kProgram;
  fail(ErrorKind::io,
       "{}: this program, which reads .h5 files, is missing; build or install Graft "
       "again, or name its folder in $GRAFT_LIBEXEC",
       printable(folders.at(folders.size() - 2) / kProgram));
}

/// What a program needs to start; nothing of it can change what the HDF5 library does.
std::vector<std::string> environment() {
  std::vector<std::string> out = {"HDF5_PLUGIN_PRELOAD=::"};
  for (const char* name : {"LD_LIBRARY_PATH", "ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS"})
    if (const char* value = std::getenv(name); value != nullptr)
      out.push_back(fmt::format("{}={}", name, value));
  return out;
}

/// The same open file under a number that none of kH5Socket … kH5Values is.
int out_of_the_way(int fd) { return ::fcntl(fd, F_DUPFD_CLOEXEC, kH5Values + 1); }

pid_t spawn(const fs::path& program, int socket, int file, int values) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawnattr_init(&attributes);
  for (const int standard : {0, 1, 2})
    ::posix_spawn_file_actions_addopen(&actions, standard, "/dev/null", O_RDWR, 0);
  ::posix_spawn_file_actions_adddup2(&actions, socket, kH5Socket);
  ::posix_spawn_file_actions_adddup2(&actions, file, kH5File);
  ::posix_spawn_file_actions_adddup2(&actions, values, kH5Values);
  ::posix_spawn_file_actions_addclosefrom_np(&actions, kH5Values + 1);
  sigset_t none;
  sigset_t all;
  ::sigemptyset(&none);
  ::sigfillset(&all);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &all);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  std::vector<std::string> texts = environment();
  std::vector<char*> variables;
  variables.reserve(texts.size() + 1);
  for (std::string& text : texts) variables.push_back(text.data());
  variables.push_back(nullptr);
  std::string name = kProgram;
  const std::array<char*, 2> arguments = {name.data(), nullptr};
  pid_t process = -1;
  const int error = ::posix_spawn(&process, program.c_str(), &actions, &attributes,
                                  arguments.data(), variables.data());
  ::posix_spawnattr_destroy(&attributes);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0)
    fail(ErrorKind::io, "{}: cannot start this program, which reads .h5 files: {}{}",
         printable(program), std::strerror(error),
         error == EAGAIN ? "; is the number of processes limited (ulimit -u)?" : "");
  return process;
}

/// Refuses a file that a program is writing, as HDF5 itself does: by its lock, or by the mark that
/// a writer leaves in the newer superblock.
void check_not_being_written(int file, const std::string& name) {
  const char* locking = std::getenv("HDF5_USE_FILE_LOCKING");
  const bool lock = locking == nullptr || std::strcmp(locking, "FALSE") != 0;
  if (lock && ::flock(file, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK)
    fail(ErrorKind::input,
         "{}: another program has this file open for writing; wait until it is done or close the "
         "file there, then run again",
         name);
  std::array<unsigned char, 12> start{};
  constexpr size_t kVersion = 8;
  constexpr size_t kFlags = 11;
  if (::pread(file, start.data(), start.size(), 0) == static_cast<ssize_t>(start.size()) &&
      start[0] == 0x89 && start[kVersion] == 3 && (start[kFlags] & 1U) != 0)
    fail(ErrorKind::input,
         "{}: marked as open for writing: a program is still writing it, or was killed while it "
         "did; if none is, clear the mark with 'h5clear -s FILE' or save the file again",
         name);
}

bool is_archive(int file) {
  std::array<char, 4> start{};
  return ::pread(file, start.data(), start.size(), 0) == static_cast<ssize_t>(start.size()) &&
         std::string_view(start.data(), start.size()) == "PK\x03\x04";
}

/// An entry of at most 8 MB as text; empty where there is none.
std::string text_of(const ZipFile& zip, const char* entry) {
  constexpr uint64_t kMost = uint64_t{8} << 20U;
  const ZipEntry* found = zip.find(entry);
  if (found == nullptr) return "";
  const std::vector<std::byte> bytes = zip.read(*found, kMost);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// What a .keras archive says of the model.
struct Said {
  std::string description;
  std::string record;
  std::string beside_record;
};

/// The weights in a .keras archive, in memory that no file stands for.
int unpack_weights(const fs::path& path, const std::string& name, Said& said) {
  const MappedFile file(path);
  const ZipFile zip(file.bytes(), name);
  said.description = text_of(zip, "config.json");
  said.record = text_of(zip, "graft.json");
  if (const ZipEntry* record = zip.find("graft.json"))
    said.beside_record = zip.listing_without(*record);
  const ZipEntry* entry = zip.find("model.weights.h5");
  if (entry == nullptr || entry->size == 0)
    fail(ErrorKind::input,
         "{}: a zip archive without model.weights.h5; expected what Keras writes with "
         "model.save('model.keras')",
         name);
  zip.check_size(*entry);
  const int memory = ::memfd_create("graft-keras", MFD_CLOEXEC);
  void* at = MAP_FAILED;
  if (memory >= 0 && ::ftruncate(memory, static_cast<off_t>(entry->size)) == 0)
    at = ::mmap(nullptr, entry->size, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
  const int error = errno;
  try {
    if (at == MAP_FAILED)
      fail(ErrorKind::memory, "{}: {} bytes for its weights cannot be had: {}", name, entry->size,
           std::strerror(error));
    zip.read(*entry, {static_cast<std::byte*>(at), entry->size});
  } catch (...) {
    if (at != MAP_FAILED) ::munmap(at, entry->size);
    if (memory >= 0) ::close(memory);
    throw;
  }
  ::munmap(at, entry->size);
  return memory;
}

}  // namespace

void H5File::Descriptor::reset(int fd) {
  if (fd_ >= 0) ::close(fd_);
  fd_ = fd;
}

H5File::H5File(const fs::path& path, std::stop_token until)
    : name_(printable(path)), until_(std::move(until)) {
  try {
    open(path);
    H5Message catalogue = receive();
    weights_ = std::move(catalogue.weights);
    if (description_.empty()) description_ = std::move(catalogue.text);
    if (beside_record_.empty()) record_ = std::move(catalogue.record);
    if (description_ == "{}") description_.clear();  // says nothing
  } catch (...) {
    stop();  // no destructor runs
    throw;
  }
}

void H5File::open(const fs::path& path) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat info {};
  if (file.get() < 0 || ::fstat(file.get(), &info) != 0)
    fail(ErrorKind::io, "{}: cannot open: {}", name_, std::strerror(errno));
  if (!S_ISREG(info.st_mode)) fail(ErrorKind::io, "{}: not a regular file; name a file", name_);
  const auto bytes = static_cast<uint64_t>(info.st_size);
  patience_ = kLeastPatience + seconds(static_cast<int64_t>(bytes / kBytesPerSecond));
  deadline_ = std::chrono::steady_clock::now() + patience_;
  if (is_archive(file.get())) {
    Said said;
    const Descriptor member(unpack_weights(path, name_, said));
    description_ = std::move(said.description);
    record_ = std::move(said.record);
    beside_record_ = std::move(said.beside_record);
    start(member.get());
    return;
  }
  check_not_being_written(file.get(), name_);
  start(file.get());
}

void H5File::check_stop() const {
  if (until_.stop_requested()) throw Error(ErrorKind::interrupted, "interrupted");
}

H5File::~H5File() { stop(); }

void H5File::start(int file) {
  const fs::path program = find_program();
  std::array<int, 2> ends = {-1, -1};
  const int shared = ::memfd_create("graft-h5", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  shared_.reset(shared);
  if (shared < 0 || ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0)
    fail(ErrorKind::io, "{}: cannot be read: {}", name_, std::strerror(errno));
  socket_.reset(ends[0]);
  const Descriptor theirs(ends[1]);
  const Descriptor a(out_of_the_way(theirs.get()));
  const Descriptor b(out_of_the_way(file));
  const Descriptor c(out_of_the_way(shared));
  if (a.get() < 0 || b.get() < 0 || c.get() < 0)
    fail(ErrorKind::io, "{}: cannot be read: {}", name_, std::strerror(errno));
  process_ = spawn(program, a.get(), b.get(), c.get());
}

void H5File::stop() {
  if (process_ > 0) {
    ::kill(process_, SIGKILL);
    while (::waitpid(process_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  process_ = -1;
}

H5Message H5File::receive() {
  const auto wait = [&] {
    while (true) {
      check_stop();
      pollfd poll{socket_.get(), POLLIN, 0};
      if (::poll(&poll, 1, static_cast<int>(kLookForSignals.count())) > 0) return;
      if (std::chrono::steady_clock::now() > deadline_)
        fail(
            ErrorKind::input,
            "{}: damaged, or on a disk that does not answer: reading it takes longer than its size "
            "explains; download or save it again",
            name_);
    }
  };
  H5Message message;
  if (!receive_message(socket_.get(), message, wait)) {
    check_stop();  // the terminal's Ctrl-C reaches the program too
    fail_dead();
  }
  if (message.tag == H5Tag::refusal)
    fail(ErrorKind::input, "{}: not a usable Keras weights file: {}", name_,
         printable(message.text));
  // Names go into messages, and what a terminal obeys is no part of a name that Graft knows.
  for (H5Weight& weight : message.weights)
    for (std::string* text : {&weight.layer, &weight.name, &weight.problem, &weight.path})
      *text = printable(*text);
  return message;
}

void H5File::fail_dead() {
  int status = 0;
  for (int i = 0; i < 100 && process_ > 0; ++i) {
    const pid_t ended = ::waitpid(process_, &status, WNOHANG);
    if (ended != 0) process_ = -1;
    if (ended == 0) ::usleep(10'000);
  }
  stop();
  std::string how = "it ended without an answer";
  if (WIFSIGNALED(status)) {
    const int signal = WTERMSIG(status);
    how = signal == SIGXCPU ? "it computed longer than the file's size explains"
                            : fmt::format("signal {}, {}", signal, ::strsignal(signal));
  }
  fail(ErrorKind::input,
       "{}: damaged, or not made by Keras: the HDF5 library failed on it ({}); download or save it "
       "again",
       name_, how);
}

void H5File::read(std::span<const size_t> wanted,
                  const std::function<void(size_t, std::span<const float>)>& take) {
  if (wanted.empty()) return;
  // Room for any weight, of which no page is taken before it is written to.
  uint64_t largest = 0;
  for (const H5Weight& weight : weights_) largest = std::max(largest, weight.bytes());
  deadline_ = std::chrono::steady_clock::now() + patience_;
  // Sealed at this size: nothing that the program does can take mapped pages away again.
  if (!sealed_ &&
      (::ftruncate(shared_.get(), static_cast<off_t>(largest)) != 0 ||
       ::fcntl(shared_.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0))
    fail(ErrorKind::io, "{}: cannot be read: {}", name_, std::strerror(errno));
  sealed_ = true;
  void* at = ::mmap(nullptr, largest, PROT_READ, MAP_SHARED, shared_.get(), 0);
  if (at == MAP_FAILED)
    fail(ErrorKind::memory, "{}: {} bytes for its largest tensor cannot be had: {}", name_, largest,
         std::strerror(errno));
  const auto unmap = [&](void* map) { ::munmap(map, largest); };
  const std::unique_ptr<void, decltype(unmap)> map(at, unmap);
  for (const size_t index : wanted) {
    if (!send_message(socket_.get(), {H5Tag::read, {}, "", static_cast<uint32_t>(index)}) ||
        receive().tag != H5Tag::values)
      fail_dead();
    take(index, {static_cast<const float*>(at), weights_[index].bytes() / sizeof(float)});
  }
}

}  // namespace graft
