// What a training run will do, worked out before it starts.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "cli/train_options.h"
#include "dataset/dataset.h"
#include "graft/network.h"
#include "train/phase.h"

namespace graft::cli {

struct MemoryEstimate {
  uint64_t features = 0;     ///< outputs of the frozen prefix, or pictures, kept for all epochs
  uint64_t parameters = 0;   ///< weights, gradients and optimiser state of the suffix
  uint64_t activations = 0;  ///< of one training step
  uint64_t prefix = 0;       ///< the engine's weights and buffers
  uint64_t available = 0;    ///< 0: unknown
  std::string_view limit{};  ///< the limit that leaves no more; empty: the machine's memory
  [[nodiscard]] uint64_t total() const { return features + parameters + activations + prefix; }
};

struct TrainPlan {
  Dataset dataset;   ///< split
  Network network;   ///< with head
  std::string head;  ///< in the head's language
  FreezePlan freeze;
  std::vector<TrainPhase> phases;
  int views = 1;  ///< of each training picture, their features cached; 0: new ones in every epoch
  MemoryEstimate memory;      ///< of the phase that needs most
  std::filesystem::path run;  ///< the run folder
};

/// Opens and splits the data, builds the network, estimates memory. Throws Error for anything that
/// would fail later: no classes, a run folder that exists, too little memory.
TrainPlan make_train_plan(const TrainOptions& options);

/// The plan for reading, as `--dry-run` prints it.
std::string plan_text(const TrainPlan& plan, const TrainOptions& options);

}  // namespace graft::cli
