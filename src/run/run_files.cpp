#include "run/run_files.h"

#include <fmt/format.h>

#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "run/run_folder.h"

namespace graft {

RunFiles::RunFiles(std::filesystem::path run) : run_(std::move(run)) {}

void RunFiles::write_history(const std::vector<EpochRecord>& history) const {
  std::string text(kHistoryHeader);
  for (const EpochRecord& r : history)
    text += fmt::format("{},{:.6f},{:.6f},{:.6f},{:.6f},{:g},{:.3f}\n", r.epoch, r.loss, r.accuracy,
                        r.val_loss, r.val_accuracy, r.learning_rate, r.seconds);
  write_file_atomic(run_ / run_files::kHistory, text);
}

std::filesystem::path RunFiles::write_checkpoint(const std::string& name,
                                                 const ModelFile& model) const {
  make_folder(run_ / run_files::kCheckpoints);
  fs::path path = run_ / run_files::kCheckpoints / (name + ".safetensors");
  write_model(path, model);
  return path;
}

void RunFiles::require_checkpoint(const std::string& name) const {
  const fs::path path = run_ / run_files::kCheckpoints / (name + ".safetensors");
  try {
    static_cast<void>(read_model(path));
  } catch (const Error& error) {
    fail(
        error.kind(),
        "{}; without it this run cannot go on: a copy of that file would mend it, "
        "checkpoints/last.safetensors holds the last epoch, and what else the run has is as it was",
        error.what());
  }
}

void RunFiles::link_checkpoint(const std::string& name, const std::string& as) const {
  link_atomic(run_ / run_files::kCheckpoints / (name + ".safetensors"), run_ / as);
}

nlohmann::json epoch_json(const EpochRecord& record) {
  return {{"epoch", record.epoch},
          {"loss", record.loss},
          {"accuracy", record.accuracy},
          {"val_loss", record.val_loss},
          {"val_accuracy", record.val_accuracy}};
}

}  // namespace graft
