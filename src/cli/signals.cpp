#include "cli/signals.h"

#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <cstring>

#include "base/fail.h"
#include "base/limits.h"

namespace graft::cli {
namespace {

// A signal handler can only reach a variable of static storage.
volatile std::sig_atomic_t received =
    0;  // NOLINT(cppcoreguidelines-avoid-non-const-global-variables)

// Made before there is a handler. A request without callbacks, of which there are none, is a few
// atomic operations: a handler may make it.
std::stop_source& source() {
  static std::stop_source instance;
  return instance;
}

void on_signal(int number) {
  if (received != 0) ::_exit(128 + number);
  received = number;
  source().request_stop();
}

/// The soft limit on processor time: the signal comes again every second until the hard one.
void on_time_limit(int number) {
  if (received != 0) return;
  received = number;
  source().request_stop();
}

}  // namespace

void install_signal_handlers() {
  static_cast<void>(source());
  struct sigaction time_limit {};
  time_limit.sa_handler = on_time_limit;
  ::sigemptyset(&time_limit.sa_mask);
  ::sigaction(SIGXCPU, &time_limit, nullptr);
  leave_time_to_stop();
  struct sigaction action {};
  action.sa_handler = on_signal;
  ::sigemptyset(&action.sa_mask);
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
  struct sigaction hangup {};
  if (::sigaction(SIGHUP, nullptr, &hangup) == 0 && hangup.sa_handler != SIG_IGN)
    ::sigaction(SIGHUP, &action, nullptr);
}

void request_stop() {
  if (received != 0) return;
  received = SIGHUP;
  source().request_stop();
}

int interrupting_signal() { return received; }

std::string interruption_text() {
  return fmt::format("interrupted by SIG{}{}", ::sigabbrev_np(received),
                     received == SIGXCPU ? " (the limit on processor time, ulimit -t)" : "");
}

std::stop_token stop_token() { return source().get_token(); }

void check_interrupted() {
  if (received != 0) fail(ErrorKind::interrupted, "{}", interruption_text());
}

}  // namespace graft::cli
