#include "train/compact.h"

#include <utility>
#include <vector>

#include "base/fail.h"
#include "base/file.h"
#include "graft/run_files.h"
#include "run/run_files.h"

namespace graft {
namespace {

// Below it checkpoints are kept as they are: they cost nothing, and such a run goes on to the bit.
constexpr uintmax_t kSmall = 16'000'000;

constexpr const char* kCompact = "compact";

uintmax_t checkpoint_bytes(const fs::path& run) {
  uintmax_t sum = 0;
  std::error_code error;
  for (const char* name : {run_files::kBest, run_files::kState})
    if (const uintmax_t size = fs::file_size(run / name, error); !error) sum += size;
  return sum;
}

}  // namespace

void compact_run(const std::filesystem::path& run, const TrainPlan& plan, const Run& done) {
  int epochs = 0;
  for (const TrainPhase& phase : plan.phases) epochs += phase.epochs;
  if (plan.recipe.optimization.schedule == Schedule::constant ||
      static_cast<int>(done.history.size()) < epochs || checkpoint_bytes(run) <= kSmall)
    return;
  const TrainingState state(run);
  nlohmann::json record = state.read_record();
  // A run that was concluded anew has its last layer there already.
  if (!record.contains(kCompact)) {
    record[kCompact] = true;
    const ModelFile best = read_model(run / run_files::kBest);
    const std::string last = best.metadata.network.layers.back().name;
    std::vector<std::pair<std::string, Tensor>> kept;
    for (const char* role : {".weight", ".bias"})
      kept.emplace_back(last + role, best.tensors.at(last + role));
    state.replace(kept, record);
  }
  link_atomic(run / run_files::kModel, run / run_files::kBest);
  std::error_code error;
  for (const char* name : {run_files::kLast, run_files::kPreviousState, run_files::kDamagedState})
    fs::remove(run / name, error);
}

bool is_compact(const TrainingState::Loaded& state) { return state.record.contains(kCompact); }

ModelFile restore_best(const std::filesystem::path& run, const TrainingState::Loaded& state) {
  ModelFile best = read_model(run / run_files::kBest);
  for (const auto& [name, tensor] : state.tensors) {
    const auto at = best.tensors.find(name);
    if (at == best.tensors.end() || at->second.shape() != tensor.shape())
      fail(ErrorKind::input, "{}: its tensor {} is not that of the best epoch",
           printable(run / run_files::kState), name);
    at->second = tensor;
  }
  best.metadata.training.erase("temperature");
  const RunFiles files(run);
  files.write_checkpoint("best", best);
  files.link_checkpoint("best", run_files::kLast);
  return best;
}

}  // namespace graft
