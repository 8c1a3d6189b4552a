// The most that a processor can multiply, measured by loops that do nothing else.
#pragma once

#include <cstdint>
#include <vector>

#include "graft/precision.h"

namespace graft::engine {

/// Operations of one kind, as many in flight as its units and registers allow.
struct PeakLoop {
  const char*
      instructions;     ///< "avx2", "avx512", "avx512_bf16", "amx", …: as GRAFT_TARGET has them
  Precision precision;  ///< of the factors
  int lanes;            ///< numbers of a vector; of a tile, its sums
  double operations;    ///< of a round: multiplications and additions
  void (*enter)();      ///< before and after a thread's rounds
  void (*leave)();
  float (*run)(int64_t rounds, float value);  ///< returns what depends on all
};

/// Of each instruction set that this processor has.
std::vector<PeakLoop> peak_loops();

}  // namespace graft::engine
