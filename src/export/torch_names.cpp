#include "export/torch_names.h"

#include <algorithm>

#include "weights/torch_names.h"

namespace graft {
namespace {

constexpr int kTorchvisionUnits = 4096;
constexpr int64_t kTorchvisionMap = 7;  // rows and columns, after its adaptive pooling

bool has_tensors(const Layer& layer) {
  return layer.kind == LayerKind::conv || layer.kind == LayerKind::batchnorm ||
         layer.kind == LayerKind::dense;
}

/// Whether torchvision.models.vgg… with another number of classes is the same network.
bool is_torchvision(const Network& network) {
  const size_t head =
      static_cast<size_t>(std::find_if(network.layers.begin(), network.layers.end(),
                                       [](const Layer& layer) { return layer.in_head; }) -
                          network.layers.begin());
  const std::vector<std::string> known = backbone_names();
  // The narrow vgg-mini is Graft's own.
  if (std::find(known.begin(), known.end(), network.backbone) == known.end() ||
      network.backbone.find('-') != std::string::npos)
    return false;
  const Network whole = backbone(network.backbone, network.input_height, network.input_width);
  if (whole.layers.size() != head) return false;
  for (size_t i = 0; i < head; ++i)
    if (whole.layers[i].kind != network.layers[i].kind ||
        whole.layers[i].outputs != network.layers[i].outputs ||
        whole.layers[i].relu != network.layers[i].relu)
      return false;
  const Shape map = output_shapes(network)[head - 1];
  if (map.height != kTorchvisionMap || map.width != kTorchvisionMap) return false;
  std::vector<const Layer*> layers;
  for (size_t i = head; i < network.layers.size(); ++i)
    if (network.layers[i].kind != LayerKind::dropout) layers.push_back(&network.layers[i]);
  const auto is_dense = [](const Layer& layer) {
    return layer.kind == LayerKind::dense && layer.relu && layer.outputs == kTorchvisionUnits;
  };
  return layers.size() == 4 && layers[0]->kind == LayerKind::flatten && is_dense(*layers[1]) &&
         is_dense(*layers[2]) && layers[3]->kind == LayerKind::dense;
}

}  // namespace

std::vector<std::string> torch_modules(const Network& network) {
  const bool torchvision = is_torchvision(network);
  std::vector<std::string> modules;
  int features = 0;
  int head = 0;
  for (const Layer& layer : network.layers) {
    std::string name;
    if (layer.in_head && torchvision) {
      // The dropout counts, whether this head has it or not.
      if (layer.kind == LayerKind::dense) {
        name = "classifier." + std::to_string(head);
        head += kTorchClassifierStep;
      }
    } else if (layer.kind != LayerKind::input) {
      int& count = layer.in_head ? head : features;
      name = (layer.in_head ? "head." : "features.") + std::to_string(count);
      count += torch_entries(layer);
    }
    modules.push_back(has_tensors(layer) ? name : "");
  }
  return modules;
}

}  // namespace graft
