// A training run from its first epoch to its best: phases, checkpoints, state.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "dataset/dataset.h"
#include "features/feature_cache.h"
#include "graft/context.h"
#include "graft/device.h"
#include "graft/group.h"
#include "graft/network.h"
#include "graft/recipe.h"
#include "graft/train.h"
#include "train/schedule.h"
#include "weights/metadata.h"
#include "weights/tensor.h"

namespace graft {

struct TrainJob {
  const Dataset& dataset;          ///< split
  Recipe recipe;                   ///< resolved
  std::vector<TrainPhase> phases;  ///< what trains never shrinks
  int views = 1;                   ///< of each training image; 0: new ones in every epoch
  FeatureCache* cache = nullptr;
  FeatureType feature_type = FeatureType::fp16;  ///< that features are rounded to
  /// That computes frozen layers and trains the others; null: the engine, and LibTorch on the
  /// processor.
  const ComputeDevice* device = nullptr;
  std::filesystem::path run;
  ModelMetadata metadata;  ///< network, classes, preprocessing, provenance
  TensorMap backbone;      ///< weights of the backbone, frozen and unfrozen
  bool resume = false;     ///< from the state in the run folder, if there is one
  RunContext context{};
  std::vector<TrainObserver*> observers{};  ///< none owned
  /// That trains together; null: this process alone. Rank 0 alone has observers and writes files.
  Group* group = nullptr;
  GradientCompression compression = GradientCompression::none;  ///< in a group
  /// Told before the first epoch which samples cannot be read, and why; what it throws ends
  /// training. Null: nobody.
  std::function<void(const std::vector<size_t>& samples, const std::vector<std::string>& why)>
      on_read = nullptr;
};

struct TrainResult {
  std::vector<EpochRecord> history;
  int best_epoch = 0;
  bool stopped_early = false;
  std::vector<size_t> excluded;  ///< samples that could not be decoded, or not in all epochs
  std::vector<std::string> errors;
};

/// Trains the suffix, writes history.csv, checkpoints/best.safetensors and last.safetensors as it
/// goes. After each epoch the whole state of training goes to checkpoints/state.safetensors; a run
/// that is resumed from there ends with the same weights, bit for bit on one machine with the same
/// thread count. Where the context says stop, the last weights are saved and Error(interrupted)
/// thrown.
TrainResult run_training(const TrainJob& job);

/// See find_learning_rate().
std::vector<RatePoint> run_range_test(const TrainJob& job);

}  // namespace graft
