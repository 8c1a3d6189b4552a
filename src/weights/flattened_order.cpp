#include "weights/flattened_order.h"

#include <optional>
#include <utility>

namespace graft {

Tensor channels_first(const Tensor& in, const Shape& map) {
  const int64_t inputs = map.elements();
  const int64_t rows = static_cast<int64_t>(in.values().size()) / inputs;
  std::vector<float> out(in.values().size());
  for (int64_t r = 0; r < rows; ++r) {
    const float* from = in.data() + r * inputs;
    float* to = out.data() + r * inputs;
    for (int64_t y = 0; y < map.height; ++y)
      for (int64_t x = 0; x < map.width; ++x)
        for (int64_t c = 0; c < map.channels; ++c)
          to[(c * map.height + y) * map.width + x] = from[(y * map.width + x) * map.channels + c];
  }
  return {in.shape(), std::move(out)};
}

StoredTensor channels_first(StoredTensor tensor, const Shape& map) {
  tensor.read = [read = std::move(tensor.read), map] { return channels_first(read(), map); };
  return tensor;
}

namespace {

/// The map whose numbers a layer reads one by one: it stands behind a flatten, with no dense layer
/// between.
std::optional<Shape> flattened_before(const Network& network, size_t layer,
                                      const std::vector<Shape>& shapes) {
  const std::vector<Layer>& layers = network.layers;
  if (!shapes[layers[layer].source()].flat) return std::nullopt;
  for (size_t i = layers[layer].source(); i > 0; i = layers[i].source()) {
    if (layers[i].kind == LayerKind::dense) return std::nullopt;
    if (layers[i].kind == LayerKind::flatten) return shapes[layers[i].source()];
  }
  return std::nullopt;
}

}  // namespace

StoredTensor in_graft_order(StoredTensor tensor, const Network& network, const TensorSpec& spec,
                            const std::vector<Shape>& shapes) {
  const Layer& layer = network.layers[spec.layer];
  const bool per_input = layer.kind != LayerKind::dense || spec.name == layer.name + ".weight";
  if (!per_input) return tensor;
  const std::optional<Shape> map = flattened_before(network, spec.layer, shapes);
  return map ? channels_first(std::move(tensor), *map) : tensor;
}

}  // namespace graft
