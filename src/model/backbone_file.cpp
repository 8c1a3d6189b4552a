#include "model/backbone_file.h"

#include <utility>
#include <vector>

#include "base/fail.h"
#include "engine/fold.h"

namespace graft {

ModelFile without_head(const ModelFile& model) {
  ModelFile out = model;
  out.metadata.provenance = backbone_provenance(model.metadata);
  out.metadata.classes.clear();
  std::erase_if(out.metadata.network.layers, [](const Layer& layer) { return layer.in_head; });
  out.tensors.clear();
  for (const TensorSpec& spec : tensor_specs(out.metadata.network))
    out.tensors.emplace(spec.name, model.tensors.at(spec.name));
  return out;
}

ModelFile fold_batchnorm(const ModelFile& model) {
  const Network& network = model.metadata.network;
  constexpr std::string_view kSuffix = "_bn";
  if (!network.backbone.ends_with(kSuffix))
    fail(ErrorKind::input, "{} has no BatchNorm to fold", network.backbone);
  ModelFile out{model.metadata, {}};
  out.metadata.network =
      cut_after(backbone(network.backbone.substr(0, network.backbone.size() - kSuffix.size()),
                         network.input_height, network.input_width),
                // A cut between a convolution and its BatchNorm does not exist without the latter.
                network.layers.back().kind == LayerKind::batchnorm
                    ? network.layers[network.layers.size() - 2].name
                    : network.layers.back().name);
  for (size_t i = 0; i < network.layers.size(); ++i) {
    if (network.layers[i].kind != LayerKind::conv) continue;
    if (!engine::takes_batchnorm(network, i, network.layers.size()))
      fail(ErrorKind::input, "layer {} has no BatchNorm behind it", network.layers[i].name);
    engine::FoldedLayer folded =
        engine::fold_layer(network, i, network.layers.size(), model.tensors);
    for (const TensorSpec& spec : tensor_specs(network, i, i + 1)) {
      std::vector<float> values;
      values.swap(spec.shape.size() > 1 ? folded.weight : folded.bias);
      out.tensors.emplace(spec.name, Tensor(spec.shape, std::move(values)));
    }
  }
  return out;
}

}  // namespace graft
