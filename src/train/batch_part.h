// A process's part of a batch that a group trains on together.
#pragma once

#include <cstdint>

namespace graft {

class Group;

struct BatchPart {
  Group* group = nullptr;  ///< null: the batch is this process's own
  int64_t first = 0;       ///< row of the whole batch that its own begin with
  int64_t count = 0;       ///< rows of the whole batch
  /// Its one row stands for none, so that all processes take part in all exchanges: it adds to no
  /// sum.
  bool empty = false;
};

}  // namespace graft
