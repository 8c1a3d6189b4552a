// What trains when. Free of LibTorch: plans are made without it.
#pragma once

#include <cstddef>

namespace graft {

/// Consecutive epochs in which the same layers train, with a schedule and an optimiser state of
/// their own.
struct TrainPhase {
  int epochs = 0;
  size_t prefix_end = 0;  ///< layers before it are frozen and run in the engine
  bool keep_features = true;
  double learning_rate = 1e-3;
};

}  // namespace graft
