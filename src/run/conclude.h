// What a run says of its model once training is over.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "features/feature_cache.h"
#include "graft/labels.h"
#include "graft/train.h"
#include "report/metrics.h"
#include "run/skipped_images.h"

namespace graft {

/// The epochs that a run had.
struct Training {
  std::vector<EpochRecord> history;
  int best_epoch = 0;
  bool stopped_early = false;
};

/// Calibrates checkpoints/best.safetensors on the validation images, writes it as
/// model.safetensors, and measures it: predictions.csv, metrics.json and, where `report`,
/// report.html. `device`: that computes; null: the engine. `label_check`: what was found of the
/// plan's labels; null: nobody looked. `on_stage` is told of each stage, `on_split` of each split's
/// figures. Returns metrics.json's text.
std::string conclude(const TrainPlan& plan, const std::filesystem::path& run, FeatureCache* cache,
                     const ComputeDevice* device, const Training& training, SkippedImages& skipped,
                     const LabelCheck* label_check, bool report,
                     const std::function<void(TrainStage)>& on_stage,
                     const std::function<void(const std::string& split, const Metrics&)>& on_split,
                     const RunContext& context);

/// The feature cache, or nothing where it is not wanted or cannot be had: then everything is
/// computed, which is slow but right.
std::unique_ptr<FeatureCache> open_cache(const CacheOptions& options, const RunContext& context);

}  // namespace graft
