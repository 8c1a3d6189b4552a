#include "cli/workers.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/fail.h"
#include "base/limits.h"

namespace graft::cli {
namespace {

// Tells a process that torchrun's variables are this program's own.
constexpr const char* kWorkers = "GRAFT_WORKERS";

/// A port that no other process is given until rank 0 listens on it: a socket that is bound, and
/// stays open in the program that this process becomes. (Both set SO_REUSEADDR.)
int reserve_port() {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  const int on = 1;
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* any = reinterpret_cast<sockaddr*>(&address);
  if (fd < 0 || ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
      ::bind(fd, any, size) != 0 || ::getsockname(fd, any, &size) != 0)
    fail(ErrorKind::io, "--workers: no port of the loopback interface can be had: {}",
         system_error_text(errno));
  return ntohs(address.sin_port);
}

void set(const char* name, const std::string& value) { ::setenv(name, value.c_str(), 1); }

/// In a new process: it ends with the first one, reads nothing and prints no results.
void begin_worker(pid_t parent) {
  // Stays in force over exec. The parent may have been faster.
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(1);
  if (const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC); null >= 0) {
    ::dup2(null, STDIN_FILENO);
    ::dup2(null, STDOUT_FILENO);
  }
}

/// Returns the rank: 0 in this process, which goes on as the first of them.
int fork_all(int workers) {
  const pid_t parent = ::getpid();
  std::vector<pid_t> started;
  for (int rank = 1; rank < workers; ++rank) {
    const pid_t child = ::fork();
    if (child == 0) {
      begin_worker(parent);
      return rank;
    }
    if (child < 0) {
      const int error = errno;
      for (const pid_t other : started) ::kill(other, SIGKILL);
      fail(ErrorKind::io, "--workers {}: process {} cannot be started: {}", workers, rank + 1,
           system_error_text(error));
    }
    started.push_back(child);
  }
  return 0;
}

}  // namespace

bool is_worker_of(int workers) {
  const char* text = std::getenv(kWorkers);
  return text != nullptr && text == std::to_string(workers);
}

void start_workers(int workers, const std::filesystem::path& program, char** argv) {
  const std::string size = std::to_string(workers);
  set("MASTER_ADDR", "127.0.0.1");
  set("MASTER_PORT", std::to_string(reserve_port()));
  set("WORLD_SIZE", size);
  set("LOCAL_WORLD_SIZE", size);
  set("RANK", "0");
  set("LOCAL_RANK", "0");
  set(kWorkers, size);
  ::unsetenv("TORCHELASTIC_USE_AGENT_STORE");
  const int rank = fork_all(workers);
  if (rank == 0) return;
  set("RANK", std::to_string(rank));
  set("LOCAL_RANK", std::to_string(rank));
  ::execv(program.c_str(), argv);
  ::_exit(1);
}

int fork_workers(int workers) {
  const int rank = fork_all(workers);
  if (rank > 0) ::dup2(STDOUT_FILENO, STDERR_FILENO);  // /dev/null
  return rank;
}

}  // namespace graft::cli
