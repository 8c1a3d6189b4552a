// What limits on memory and processes (batch systems, ulimit, containers) leave for training.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace graft {

struct MemoryLeft {
  uint64_t bytes = 0;  ///< 0: unknown
  std::string_view
      limit{};          ///< the limit that leaves no more, as text; empty: the machine's memory
  uint64_t others = 0;  ///< of such a limit, what libraries and a thread take
};

/// Memory for data, parameters and activations, beside what the libraries and one thread take,
/// those libraries too where they are not in this process yet.
MemoryLeft memory_for_training();

}  // namespace graft
