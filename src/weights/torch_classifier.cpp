#include "weights/torch_classifier.h"

#include <array>
#include <utility>

#include "weights/match.h"
#include "weights/torch_weights.h"

namespace graft {
namespace {

// Convolutions do not depend on it.
constexpr int kSide = 224;
constexpr double kTorchDropout = 0.5;  // torchvision/models/vgg.py

StoredTensor flattened(StoredTensor tensor) {
  if (tensor.shape.size() != 4) return tensor;
  // timm's convolution over the whole map has its numbers in the order of a dense layer's.
  const std::vector<int64_t> shape = {tensor.shape[0],
                                      tensor.shape[1] * tensor.shape[2] * tensor.shape[3]};
  tensor.shape = shape;
  tensor.read = [read = std::move(tensor.read), shape] {
    const auto owner = std::make_shared<const Tensor>(read());
    return Tensor(shape, owner->values(), owner);
  };
  return tensor;
}

}  // namespace

std::optional<ForeignGraph> read_torch_classifier(const StoredTensors& tensors,
                                                  const std::string& file) {
  const TorchMatcher matcher(file, tensors);
  const std::vector<Fit> fits = fitting_backbones(matcher.convolutions(), kSide, kSide);
  if (fits.empty() || !fits.front().whole) return std::nullopt;
  const Network full = backbone(fits.front().backbone, kSide, kSide, /*include_top=*/true);
  ForeignGraph graph;
  graph.file = file;
  graph.family = matcher.names() == TorchNames::timm ? "timm" : "torchvision";
  graph.preprocessing = torchvision_preprocessing();
  for (const Layer& layer : full.layers) {
    if (layer.kind == LayerKind::input) continue;
    ForeignLayer made{.name = matcher.module(layer, full),
                      .kind = layer.kind,
                      .outputs = layer.outputs,
                      .epsilon = layer.epsilon,
                      .relu = layer.relu};
    for (const char* role : {"weight", "bias", "running_mean", "running_var"})
      if (const StoredTensor* tensor = matcher.find(layer.name + "." + role, full))
        made.tensors.emplace(role, layer.kind == LayerKind::dense ? flattened(*tensor) : *tensor);
    if (layer.kind == LayerKind::dense) {
      const auto weight = made.tensors.find("weight");
      if (weight == made.tensors.end() || weight->second.shape.size() != 2) return std::nullopt;
      constexpr int64_t kMostOutputs = 1 << 20;
      if (weight->second.shape[0] < 1 || weight->second.shape[0] > kMostOutputs)
        return std::nullopt;
      made.outputs = static_cast<int>(weight->second.shape[0]);
    }
    const bool hidden = layer.kind == LayerKind::dense && layer.relu;
    graph.layers.push_back(std::move(made));
    if (hidden)
      graph.layers.push_back(
          {.name = "dropout", .kind = LayerKind::dropout, .rate = kTorchDropout});
  }
  // A classifier of another form is not taken in half.
  if (!matcher.left_out(full).empty()) return std::nullopt;
  return graph;
}

}  // namespace graft
