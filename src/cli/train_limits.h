// What limits on memory and processes (batch systems, ulimit, containers) leave for training.
#pragma once

#include <cstdint>
#include <string>

namespace graft::cli {

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

/// Memory for data, parameters and activations, beside what the libraries and `threads` threads
/// take. 0 if unknown. `loaded`: the training program's libraries are in this process.
uint64_t memory_for_training(int threads, bool loaded);

}  // namespace graft::cli
