#include "weights/keras_classifier.h"

#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/fail.h"
#include "base/file.h"
#include "weights/h5_process.h"
#include "weights/keras_model.h"
#include "weights/keras_names.h"
#include "weights/keras_values.h"
#include "weights/keras_walk.h"

namespace graft {
namespace {

using SharedFile = std::shared_ptr<H5File>;

std::vector<float> values_of(H5File& file, size_t index) {
  std::vector<float> out;
  const std::array<size_t, 1> wanted = {index};
  file.read(wanted, [&](size_t, std::span<const float> values) {
    out.assign(values.begin(), values.end());
  });
  return out;
}

StoredTensor stored(const SharedFile& file, size_t index) {
  const std::vector<int64_t>& shape = file->weights()[index].shape;
  StoredTensor out;
  out.shape = canonical_shape(shape);
  out.read = [file, index, shape] {
    std::vector<float> values;
    const std::array<size_t, 1> wanted = {index};
    file->read(wanted,
               [&](size_t, std::span<const float> in) { values = canonical_values(shape, in); });
    return Tensor(canonical_shape(shape), std::move(values));
  };
  return out;
}

}  // namespace

std::vector<std::vector<float>> own_values(H5File& file, const KerasLocator& locator,
                                           const KerasPath& path) {
  constexpr uint64_t kFew = 64;  // numbers: one for each channel
  std::vector<std::vector<float>> out;
  for (const size_t index : locator.of(path)) {
    const H5Weight& weight = file.weights()[index];
    const bool few = weight.problem.empty() && weight.bytes() <= kFew * sizeof(float);
    out.push_back(few ? values_of(file, index) : std::vector<float>());
  }
  return out;
}

std::optional<ForeignGraph> read_keras_classifier(const fs::path& path,
                                                  const std::stop_token& until) {
  const std::string name = printable(path);
  const auto file = std::make_shared<H5File>(path, until);
  if (file->description().empty()) return std::nullopt;
  const KerasModel model = parse_keras_model(file->description(), name);
  const KerasLocator locator(model, file->weights(), name);
  KerasWalk walk = walk_keras_model(
      model, name, [&](const KerasPath& layer) { return own_values(*file, locator, layer); });
  ForeignGraph graph;
  graph.file = name;
  graph.family = "keras";
  graph.height = walk.height;
  graph.width = walk.width;
  graph.channels_last = true;
  graph.output = walk.output;
  graph.preprocessing = walk.preprocessing;
  graph.notes = std::move(walk.notes);
  for (KerasStep& step : walk.steps) {
    for (const auto& [role, index] : locator.roles_of(step.path))
      step.layer.tensors.emplace(role, stored(file, index));
    graph.layers.push_back(std::move(step.layer));
  }
  return graph;
}

}  // namespace graft
