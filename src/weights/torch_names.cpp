#include "weights/torch_names.h"

#include <fmt/format.h>

namespace graft {

std::map<std::string, std::string> torch_names(const Network& backbone, TorchNames names) {
  // Both are nn.Sequential lists, numbered from 0.
  std::map<std::string, std::string> layers;
  int feature = 0;
  int classifier = 0;
  for (const Layer& layer : backbone.layers) {
    switch (layer.kind) {
      case LayerKind::conv:
      case LayerKind::batchnorm:
      case LayerKind::maxpool:
        layers[layer.name] = fmt::format("features.{}", feature);
        feature += torch_entries(layer);
        break;
      case LayerKind::dense:
        if (names == TorchNames::torchvision)
          layers[layer.name] = fmt::format("classifier.{}", classifier);
        else
          layers[layer.name] = layer.relu ? "pre_logits." + layer.name : "head.fc";
        classifier += kTorchClassifierStep;
        break;
      default:
        break;
    }
  }
  std::map<std::string, std::string> out;
  for (const TensorSpec& spec : tensor_specs(backbone)) {
    const std::string& layer = backbone.layers[spec.layer].name;
    out[spec.name] = layers.at(layer) + spec.name.substr(layer.size());
  }
  return out;
}

}  // namespace graft
