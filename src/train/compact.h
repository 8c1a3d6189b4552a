// What a run that is over keeps of its checkpoints.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>

#include "graft/train.h"
#include "model/model_file.h"
#include "train/state.h"

namespace graft {

/// Frees what nobody needs once a run whose learning rate has fallen to nothing is calibrated and
/// evaluated: the optimiser's moments, and all copies of the model but model.safetensors, whose
/// bytes checkpoints/best.safetensors then shares. What calibration changed of the best epoch, its
/// last layer, stays in state.safetensors, so that the run can still be concluded anew, to the bit,
/// or be prolonged from its best epoch with an optimiser that starts anew. Runs that take little
/// space keep everything. A kill at any moment leaves a run that can be resumed.
void compact_run(const std::filesystem::path& run, const TrainPlan& plan, const Run& done);

/// Whether a state is what compact_run() left of it.
bool is_compact(const TrainingState::Loaded& state);

/// The best epoch of such a run as it was before calibration, which checkpoints/best.safetensors
/// and last.safetensors are again afterwards.
ModelFile restore_best(const std::filesystem::path& run, const TrainingState::Loaded& state);

}  // namespace graft
