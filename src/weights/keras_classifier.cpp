#include "weights/keras_classifier.h"

#include <algorithm>
#include <array>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/fail.h"
#include "base/file.h"
#include "weights/foreign_head.h"
#include "weights/h5_process.h"
#include "weights/keras_h5.h"
#include "weights/keras_layout.h"
#include "weights/keras_model.h"
#include "weights/keras_names.h"
#include "weights/keras_trunk.h"
#include "weights/keras_values.h"
#include "weights/keras_walk.h"

namespace graft {
namespace {

std::vector<float> values_of(H5File& file, size_t index) {
  std::vector<float> out;
  const std::array<size_t, 1> wanted = {index};
  file.read(wanted, [&](size_t, std::span<const float> values) {
    out.assign(values.begin(), values.end());
  });
  return out;
}

/// The backbone that is in a file with weights, cut where the file's ends.
std::pair<Network, std::optional<KerasPlaces>> longest_backbone(H5File& file) {
  constexpr int kSide = 224;  // convolutions do not depend on it
  // Whole backbones first, then the longest cuts.
  Network best;
  std::optional<KerasPlaces> places;
  for (const std::string& name : backbone_names()) {
    const Network network = backbone(name, kSide, kSide);
    for (size_t end = network.layers.size(); end > best.layers.size() && end > 1; --end)
      if (network.layers[end - 1].kind == LayerKind::maxpool)
        if (std::optional<KerasPlaces> found = find_backbone(file, network, end)) {
          places = std::move(found);
          best = cut_after(network, network.layers[end - 1].name);
          break;
        }
  }
  return {std::move(best), std::move(places)};
}

}  // namespace

StoredTensor stored_h5_weight(const std::shared_ptr<H5File>& file, size_t index) {
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

std::optional<ForeignGraph> read_keras_classifier(const std::shared_ptr<H5File>& file) {
  const std::string& name = file->name();
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
  graph.resampling = walk.resampling;
  graph.resampling_note = std::move(walk.resampling_note);
  graph.notes = std::move(walk.notes);
  for (KerasStep& step : walk.steps) {
    for (const auto& [role, index] : locator.roles_of(step.path))
      step.layer.tensors.emplace(role, stored_h5_weight(file, index));
    graph.layers.push_back(std::move(step.layer));
  }
  return graph;
}

ForeignGraph read_keras_weights(const std::shared_ptr<H5File>& file, const std::string& words) {
  ForeignGraph graph;
  graph.file = file->name();
  graph.family = "keras";
  graph.channels_last = true;
  auto [best, places] = longest_backbone(*file);
  if (!places)
    fail(ErrorKind::input, "{}: no VGG's weights are in it; 'graft weights inspect' says what is",
         graph.file);
  for (size_t i = 1; i < best.layers.size(); ++i) {
    const Layer& layer = best.layers[i];
    ForeignLayer made{.name = layer.name,
                      .kind = layer.kind,
                      .outputs = layer.outputs,
                      .epsilon = layer.kind == LayerKind::batchnorm ? kKerasEpsilon : 0,
                      .relu = layer.relu};
    for (const TensorSpec& spec : tensor_specs(best, i, i + 1))
      made.tensors.emplace(spec.name.substr(layer.name.size() + 1),
                           stored_h5_weight(file, places->backbone.at(spec.name)));
    graph.layers.push_back(std::move(made));
  }
  require_known_order(file->weights(), graph.file);
  std::vector<ForeignPart> parts;
  for (const KerasPart& part : places->rest) {
    parts.push_back({part.layer, {}});
    for (const auto& [role, index] : part.roles)
      parts.back().tensors.emplace(role, stored_h5_weight(file, index));
  }
  append_head(graph, best, words, parts, kKerasEpsilon);
  return graph;
}

}  // namespace graft
