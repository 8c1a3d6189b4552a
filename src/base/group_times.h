// How long the processes of a group wait for each other.
#pragma once

#include <chrono>

namespace graft {

/// After so long without a sign of life, or in an exchange, a process counts as dead.
std::chrono::milliseconds group_timeout();
/// For all processes to start.
std::chrono::milliseconds group_join_time();

}  // namespace graft
