// SIGINT, SIGTERM, SIGHUP and SIGXCPU as a flag that long loops look at.
#pragma once

#include <stop_token>
#include <string>

namespace graft::cli {

/// From now on the first SIGINT, SIGTERM or SIGHUP (a terminal that hung up; not under nohup) sets
/// the flag; a second one ends the process at once. SIGXCPU (a limit on processor time that
/// another, hard one follows) sets the flag too. Long loops call check_interrupted() between steps;
/// the library gets the flag as a stop token.
void install_signal_handlers();

/// The same request where no signal comes, as of a terminal that hung up: whoever reads has gone.
void request_stop();

/// The signal that asked to stop, or 0. Async-signal-safe.
int interrupting_signal();
/// "interrupted by SIGTERM". There has to have been one.
std::string interruption_text();

/// Throws Error(interrupted) if a signal asked to stop.
void check_interrupted();

/// Tells of the first signal.
std::stop_token stop_token();

}  // namespace graft::cli
