// The state of a training run on disk, from which it goes on.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "graft/context.h"
#include "train/fused_optimizer.h"
#include "train/suffix.h"

namespace graft {

/// checkpoints/state.safetensors of a run: the suffix's tensors, the optimiser's moments, and a
/// JSON record of everything else. Random numbers need no state: each epoch seeds its own.
class TrainingState {
 public:
  explicit TrainingState(const std::filesystem::path& run);

  /// Replaces the file atomically; the one before stays as state-previous.safetensors.
  /// `average`: see Suffix::copies(); empty where there is none.
  void save(const Suffix& suffix, const Moments& moments, const std::vector<torch::Tensor>& average,
            const nlohmann::json& record) const;

  struct Loaded {
    TensorMap tensors;
    nlohmann::json record;
  };
  /// The newest complete state, or nothing where no epoch was completed. One that is damaged is put
  /// aside as state-damaged.safetensors, with a warning, where the one before it is whole.
  /// Throws Error if there are files but none is readable.
  [[nodiscard]] std::optional<Loaded> load(const RunContext& context) const;

  /// The record alone. Throws Error where there is no state, or none that can be read.
  [[nodiscard]] nlohmann::json read_record() const { return read(file_).record; }
  /// Writes a state of other tensors, without keeping the one before.
  void replace(const std::vector<std::pair<std::string, Tensor>>& tensors,
               const nlohmann::json& record) const;

  /// Fills moments and average; the suffix is made from the tensors by their own names.
  static void restore(const Loaded& state, const Moments& moments,
                      const std::vector<torch::Tensor>& average);

 private:
  static Loaded read(const std::filesystem::path& path);

  std::filesystem::path file_;
  std::filesystem::path previous_;
};

}  // namespace graft
