#include "weights/match.h"

#include <utility>

namespace graft {

std::vector<Fit> fitting_backbones(const ShapesFor& shapes, int height, int width) {
  std::vector<Fit> out;
  for (const std::string& name : backbone_names()) {
    const Network network = backbone(name, height, width);
    const ShapeMap found = shapes(network);
    // Not where tensors are there that the blocks do not account for.
    for (size_t end = network.layers.size(); end > 1; --end) {
      if (network.layers[end - 1].kind != LayerKind::maxpool ||
          tensor_specs(network, 0, end).size() != found.size() ||
          !tensor_differences(network, end, found).empty())
        continue;
      out.push_back({name, network.layers[end - 1].name, end == network.layers.size()});
      break;
    }
  }
  return out;
}

std::string fit_hint(const ShapesFor& shapes, const Network& full) {
  const auto other = [](const std::string& name) {
    return " (these are weights of " + name + ": use `backbone` " + name + ")";
  };
  const std::vector<Fit> fits = fitting_backbones(shapes, full.input_height, full.input_width);
  for (const Fit& fit : fits)
    if (fit.whole && fit.backbone != full.backbone) return other(fit.backbone);
  const ShapeMap found = shapes(full);
  for (size_t end = full.layers.size(); end > 1; --end)
    if (full.layers[end - 1].kind == LayerKind::maxpool &&
        tensor_differences(full, end, found).empty())
      return " (the file holds only the first blocks: cut there with `until " +
             full.layers[end - 1].name + "`)";
  for (const Fit& fit : fits)
    if (fit.backbone != full.backbone) return other(fit.backbone);
  return " (for a file that holds only the first blocks, cut there with `until`)";
}

}  // namespace graft
