#include "train/state.h"

#include <fmt/format.h>

#include "base/file.h"
#include "graft/error.h"
#include "weights/safetensors.h"

namespace graft {
namespace {

constexpr const char* kRecord = "graft_training_state";

std::string moment_name(int order, size_t parameter) {
  return fmt::format("moment{}/{}", order, parameter);
}

void fill(const TensorMap& from, int order, const std::vector<torch::Tensor>& moments) {
  for (size_t i = 0; i < moments.size(); ++i) {
    const auto at = from.find(moment_name(order, i));
    torch::Tensor to = moments[i];
    if (at == from.end() || static_cast<int64_t>(at->second.values().size()) != to.numel())
      fail(ErrorKind::input,
           "the state to resume from belongs to another network or optimizer; train without "
           "--resume");
    const auto values = torch::from_blob(const_cast<float*>(at->second.data()), to.sizes());
    to.copy_(values);
  }
}

}  // namespace

TrainingState::TrainingState(const std::filesystem::path& run)
    : file_(run / "checkpoints" / "state.safetensors"),
      previous_(run / "checkpoints" / "state-previous.safetensors") {}

void TrainingState::save(const Suffix& suffix, const Optimizer& optimizer,
                         const nlohmann::json& record) const {
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (const auto& [name, tensor] : suffix.snapshot()) tensors.emplace_back(name, tensor);
  for (size_t i = 0; i < optimizer.first_moments().size(); ++i)
    tensors.emplace_back(moment_name(1, i), to_tensor(optimizer.first_moments()[i]));
  for (size_t i = 0; i < optimizer.second_moments().size(); ++i)
    tensors.emplace_back(moment_name(2, i), to_tensor(optimizer.second_moments()[i]));
  std::error_code error;
  if (fs::exists(file_, error)) {
    // Both names exist throughout: a link under a third name takes the previous one's place.
    fs::path link = previous_;
    link += ".tmp";
    fs::remove(link, error);
    fs::create_hard_link(file_, link, error);
    if (!error) fs::rename(link, previous_, error);
  }
  write_safetensors(file_, tensors, {{kRecord, record.dump()}});
}

std::optional<TrainingState::Loaded> TrainingState::load() const {
  std::error_code error;
  std::string first_problem;
  for (const fs::path& path : {file_, previous_}) {
    if (!fs::exists(path, error)) continue;
    try {
      SafetensorsFile file = read_safetensors(path);
      const auto at = file.metadata.find(kRecord);
      nlohmann::json record = at == file.metadata.end()
                                  ? nlohmann::json()
                                  : nlohmann::json::parse(at->second, nullptr, false);
      if (!record.is_object())
        fail(ErrorKind::input, "{}: is not the state of a training run", printable(path));
      return Loaded{std::move(file.tensors), std::move(record)};
    } catch (const Error& problem) {
      if (first_problem.empty()) first_problem = problem.what();
    }
  }
  if (!first_problem.empty()) throw Error(ErrorKind::input, first_problem);
  return std::nullopt;
}

void TrainingState::restore(const Loaded& state, Optimizer& optimizer) {
  fill(state.tensors, 1, optimizer.first_moments());
  fill(state.tensors, 2, optimizer.second_moments());
}

}  // namespace graft
