// What a training run leaves in its folder as it goes.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "graft/train.h"
#include "model/model_file.h"

namespace graft {

/// history.csv, checkpoints/NAME.safetensors, and further names for a checkpoint. Each file is only
/// ever replaced whole.
class RunFiles {
 public:
  explicit RunFiles(std::filesystem::path run);

  void write_history(const std::vector<EpochRecord>& history) const;
  /// Writes checkpoints/NAME.safetensors and returns its path.
  std::filesystem::path write_checkpoint(const std::string& name, const ModelFile& model) const;
  /// Throws Error(input) that says how to go on unless the checkpoint is there and whole.
  void require_checkpoint(const std::string& name) const;
  /// Gives a checkpoint another name in the run folder: a hard link where the file system has them
  /// (checkpoints are never changed), else a copy.
  void link_checkpoint(const std::string& name, const std::string& as) const;

 private:
  std::filesystem::path run_;
};

/// The part of a model's record that an epoch decides.
nlohmann::json epoch_json(const EpochRecord& record);

}  // namespace graft
