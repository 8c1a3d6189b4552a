// What this machine can do at most: the limits that the engine is compared with.
#pragma once

namespace graft {

struct MachineLimits {
  int lanes = 0;         ///< floats of the widest vector that the processor has
  double flops_one = 0;  ///< FMA peak of one thread with such vectors, operations a second
  double flops_all = 0;  ///< of all threads together
  double bytes_all = 0;  ///< memory read bandwidth of all threads, bytes a second
};

/// Measures for about a second with `threads` threads.
MachineLimits measure_machine(int threads);

}  // namespace graft
