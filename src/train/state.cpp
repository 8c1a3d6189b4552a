#include "train/state.h"

#include <fmt/format.h>

#include "base/diagnostics.h"
#include "base/fail.h"
#include "base/file.h"
#include "base/json.h"
#include "run/run_folder.h"
#include "weights/safetensors.h"

namespace graft {
namespace {

constexpr const char* kRecord = "graft_training_state";

constexpr const char* kFirst = "moment1";
constexpr const char* kSecond = "moment2";
constexpr const char* kAverage = "average";

using NamedTensors = std::vector<std::pair<std::string, Tensor>>;

std::string numbered(const char* what, size_t i) { return fmt::format("{}/{}", what, i); }

void append(const char* what, const std::vector<torch::Tensor>& tensors, NamedTensors& to) {
  for (size_t i = 0; i < tensors.size(); ++i)
    to.emplace_back(numbered(what, i), to_tensor(tensors[i]));
}

void fill(const TensorMap& from, const char* what, const std::vector<torch::Tensor>& tensors) {
  for (size_t i = 0; i < tensors.size(); ++i) {
    const auto at = from.find(numbered(what, i));
    torch::Tensor to = tensors[i];
    if (at == from.end() || static_cast<int64_t>(at->second.values().size()) != to.numel())
      fail(ErrorKind::input,
           "the state to resume from belongs to another network or optimizer; train without "
           "`resume`");
    const auto values = torch::from_blob(const_cast<float*>(at->second.data()), to.sizes());
    to.copy_(values);
  }
}

}  // namespace

TrainingState::TrainingState(const std::filesystem::path& run)
    : file_(run / run_files::kState), previous_(run / run_files::kPreviousState) {}

void TrainingState::save(const Suffix& suffix, const Moments& moments,
                         const std::vector<torch::Tensor>& average,
                         const nlohmann::json& record) const {
  NamedTensors tensors;
  for (const auto& [name, tensor] : suffix.snapshot()) tensors.emplace_back(name, tensor);
  append(kFirst, moments.first, tensors);
  append(kSecond, moments.second, tensors);
  append(kAverage, average, tensors);
  std::error_code error;
  try {
    if (fs::exists(file_, error)) link_atomic(file_, previous_);
  } catch (const Error&) {
    // Without a state before it the newest is worth writing all the same.
  }
  write_safetensors(file_, tensors, {{kRecord, record.dump()}});
}

void TrainingState::replace(const std::vector<std::pair<std::string, Tensor>>& tensors,
                            const nlohmann::json& record) const {
  write_safetensors(file_, tensors, {{kRecord, record.dump()}});
}

TrainingState::Loaded TrainingState::read(const std::filesystem::path& path) {
  const std::string name = printable(path);
  SafetensorsFile file = read_safetensors(path);
  const auto at = file.metadata.find(kRecord);
  if (at == file.metadata.end())
    fail(ErrorKind::input, "{}: is not the state of a training run", name);
  check_finite(file.tensors, name);
  nlohmann::json record = parse_json(at->second, fmt::format("{}: {}", name, kRecord));
  if (!record.is_object()) fail(ErrorKind::input, "{}: {}: not an object", name, kRecord);
  return {std::move(file.tensors), std::move(record)};
}

std::optional<TrainingState::Loaded> TrainingState::load(const RunContext& context) const {
  std::error_code error;
  std::optional<Error> problem;
  if (fs::exists(file_, error)) {
    try {
      return read(file_);
    } catch (const Error& caught) {
      problem = caught;
    }
  }
  if (fs::exists(previous_, error)) {
    try {
      Loaded loaded = read(previous_);
      if (problem) {
        context.tell(Severity::warning,
                     fmt::format("{}; going on from the state before it", problem->what()));
        // Else the next save would put the damaged file in the place of the good one.
        if (problem->kind() == ErrorKind::input) {
          fs::path aside = file_;
          aside.replace_filename(fs::path(run_files::kDamagedState).filename());
          fs::rename(file_, aside, error);
        }
      }
      return loaded;
    } catch (const Error& caught) {
      if (!problem) problem = caught;
    }
  }
  if (problem)
    throw Error(problem->kind(), std::string(problem->what()) + "; or train without `resume`");
  return std::nullopt;
}

void TrainingState::restore(const Loaded& state, const Moments& moments,
                            const std::vector<torch::Tensor>& average) {
  fill(state.tensors, kFirst, moments.first);
  fill(state.tensors, kSecond, moments.second);
  fill(state.tensors, kAverage, average);
}

}  // namespace graft
