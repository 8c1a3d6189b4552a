// What limits on memory and processes (batch systems, ulimit, containers) leave for training.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace graft {

/// Before the training program is started: throws Error where a limit is too low for its libraries,
/// which would fail, or wait for memory for ever, before they can say so.
void check_limits();

struct ThreadLimit {
  int threads = 1;
  std::string note;  ///< why they are fewer than wanted; empty if they are not
};

/// In the training program: the threads of `wanted` that limits on processes and address space
/// leave, at least 1.
ThreadLimit threads_within_limits(int wanted);

struct MemoryLeft {
  uint64_t bytes = 0;  ///< 0: unknown
  std::string_view
      limit{};  ///< the limit that leaves no more, as text; empty: the machine's memory
};

/// Memory for data, parameters and activations, beside what the libraries and `threads` threads
/// take, those libraries too where they are not in this process yet.
MemoryLeft memory_for_training(int threads);

/// Throws Error(io) where --dashboard's threads cannot be started.
void check_dashboard_threads();

}  // namespace graft
