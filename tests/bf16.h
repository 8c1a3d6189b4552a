// For tests of what is computed in bfloat16.
#pragma once

#include <gtest/gtest.h>

#include "engine/tile_kernels.h"

/// Skips the rest of a test where this process cannot compute in bfloat16.
#define SKIP_WITHOUT_BF16()                                      \
  if (::graft::engine::tile_kernels(Precision::bf16) == nullptr) \
  GTEST_SKIP() << "bf16 is refused on this processor, or GRAFT_TARGET leaves it unused"
