#include "base/signals.h"

#include <unistd.h>

#include <csignal>
#include <cstring>

#include "graft/error.h"

namespace graft {
namespace {

// A signal handler can only reach a variable of static storage.
volatile std::sig_atomic_t received =
    0;  // NOLINT(cppcoreguidelines-avoid-non-const-global-variables)

void on_signal(int number) {
  if (received != 0) ::_exit(128 + number);
  received = number;
}

/// The soft limit on processor time: the signal comes again every second until the hard one.
void on_time_limit(int number) {
  if (received == 0) received = number;
}

}  // namespace

void install_signal_handlers() {
  struct sigaction time_limit {};
  time_limit.sa_handler = on_time_limit;
  ::sigemptyset(&time_limit.sa_mask);
  ::sigaction(SIGXCPU, &time_limit, nullptr);
  struct sigaction action {};
  action.sa_handler = on_signal;
  ::sigemptyset(&action.sa_mask);
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
  struct sigaction hangup {};
  if (::sigaction(SIGHUP, nullptr, &hangup) == 0 && hangup.sa_handler != SIG_IGN)
    ::sigaction(SIGHUP, &action, nullptr);
}

int interrupting_signal() { return received; }

void check_interrupted() {
  if (received != 0) fail(ErrorKind::interrupted, "interrupted by SIG{}", ::sigabbrev_np(received));
}

}  // namespace graft
