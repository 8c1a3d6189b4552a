#include "base/helper_process.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/descriptor.h"
#include "base/fail.h"
#include "base/file.h"
#include "base/limits.h"

namespace graft {
namespace {

constexpr int kFirstDescriptor = 3;

bool is_executable(const fs::path& file) { return ::access(file.c_str(), X_OK) == 0; }

/// For programs of others that use the library, where Graft is installed comes last.
fs::path find_program(const HelperProgram& program) {
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
    if (is_executable(folder / program.name)) return folder / program.name;
  throw HelperUnavailable(fmt::format(
      "{}: this program, which {}, is missing; build or install Graft again, or name its folder in "
      "$GRAFT_LIBEXEC",
      printable(folders.at(folders.size() - 2) / program.name), program.task));
}

}  // namespace

pid_t start_helper(const HelperProgram& program, std::span<const int> descriptors,
                   std::vector<std::string> variables) {
  const fs::path file = find_program(program);
  const int end = kFirstDescriptor + static_cast<int>(descriptors.size());
  // First under numbers that none of the wanted ones is.
  std::vector<Descriptor> moved;
  for (const int descriptor : descriptors) {
    moved.emplace_back(::fcntl(descriptor, F_DUPFD_CLOEXEC, end));
    if (!moved.back().valid())
      throw HelperUnavailable(fmt::format("{}: cannot start this program, which {}: {}",
                                          printable(file), program.task, system_error_text(errno)));
  }
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawnattr_init(&attributes);
  for (const int standard : {0, 1, 2})
    ::posix_spawn_file_actions_addopen(&actions, standard, "/dev/null", O_RDWR, 0);
  for (size_t i = 0; i < moved.size(); ++i)
    ::posix_spawn_file_actions_adddup2(&actions, moved[i].get(),
                                       kFirstDescriptor + static_cast<int>(i));
  ::posix_spawn_file_actions_addclosefrom_np(&actions, end);
  sigset_t none;
  sigset_t all;
  ::sigemptyset(&none);
  ::sigfillset(&all);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &all);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  for (const char* name : {"LD_LIBRARY_PATH", "ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS"})
    if (const char* value = std::getenv(name); value != nullptr)
      variables.push_back(fmt::format("{}={}", name, value));
  std::vector<char*> environment;
  environment.reserve(variables.size() + 1);
  for (std::string& text : variables) environment.push_back(text.data());
  environment.push_back(nullptr);
  std::string name(program.name);
  const std::array<char*, 2> arguments = {name.data(), nullptr};
  pid_t process = -1;
  const int error = ::posix_spawn(&process, file.c_str(), &actions, &attributes, arguments.data(),
                                  environment.data());
  ::posix_spawnattr_destroy(&attributes);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0)
    throw HelperUnavailable(
        fmt::format("{}: cannot start this program, which {}: {}{}", printable(file), program.task,
                    system_error_text(error),
                    error == EAGAIN ? "; is the number of processes limited (ulimit -u)?" : ""));
  return process;
}

void kill_helper(pid_t process) {
  ::kill(process, SIGKILL);
  while (::waitpid(process, nullptr, 0) < 0 && errno == EINTR) {
  }
}

std::string end_helper(pid_t process) {
  constexpr int kLooks = 100;
  constexpr useconds_t kMicroseconds = 10'000;
  int status = 0;
  pid_t ended = 0;
  for (int i = 0; i < kLooks && ended == 0; ++i) {
    ended = ::waitpid(process, &status, WNOHANG);
    if (ended == 0) ::usleep(kMicroseconds);
  }
  if (ended == 0) kill_helper(process);
  if (ended <= 0 || !WIFSIGNALED(status)) return "it ended without an answer";
  const int signal = WTERMSIG(status);
  return signal == SIGXCPU ? "it computed longer than the file's size explains"
                           : fmt::format("signal {}, {}", signal, ::strsignal(signal));
}

}  // namespace graft
