#include "export/keras_graph.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "export/names.h"

namespace graft {
namespace {

using nlohmann::json;

// Layers around the network.
constexpr std::array kOwnNames = {"image", "preprocessing", "logits", "probabilities"};

/// A flat vector that came of flattening maps: Keras has it in H, W, C order, Graft in C, H, W.
using Flattened = std::optional<Shape>;

/// Where entry `i` of a vector in Keras' order stands in Graft's.
std::vector<int64_t> graft_order(const Flattened& flattened, int64_t size) {
  std::vector<int64_t> from(static_cast<size_t>(size));
  const Shape map = flattened.value_or(Shape{size, 1, 1, true});
  size_t i = 0;
  for (int64_t y = 0; y < map.height; ++y)
    for (int64_t x = 0; x < map.width; ++x)
      for (int64_t c = 0; c < map.channels; ++c) from[i++] = (c * map.height + y) * map.width + x;
  return from;
}

/// O, I, H, W → H, W, I, O.
Tensor to_hwio(const Tensor& in) {
  const std::vector<int64_t>& s = in.shape();
  std::vector<float> out(in.values().size());
  const int64_t taps = s[2] * s[3];
  for (int64_t o = 0; o < s[0]; ++o)
    for (int64_t i = 0; i < s[1]; ++i)
      for (int64_t t = 0; t < taps; ++t)
        out[(t * s[1] + i) * s[0] + o] = in.data()[(o * s[1] + i) * taps + t];
  return {{s[2], s[3], s[1], s[0]}, std::move(out)};
}

/// (out, in) → (in, out), inputs in Keras' order.
Tensor to_dense(const Tensor& in, const Flattened& flattened) {
  const int64_t outputs = in.shape()[0];
  const int64_t inputs = in.shape()[1];
  const std::vector<int64_t> from = graft_order(flattened, inputs);
  std::vector<float> out(in.values().size());
  // In squares that stay in the cache: a row of outputs is far from the next.
  constexpr int64_t kSquare = 64;
  for (int64_t i0 = 0; i0 < inputs; i0 += kSquare)
    for (int64_t o0 = 0; o0 < outputs; o0 += kSquare)
      for (int64_t i = i0; i < std::min(inputs, i0 + kSquare); ++i)
        for (int64_t o = o0; o < std::min(outputs, o0 + kSquare); ++o)
          out[i * outputs + o] = in.data()[o * inputs + from[i]];
  return {{inputs, outputs}, std::move(out)};
}

Tensor in_keras_order(const Tensor& in, const Flattened& flattened) {
  if (!flattened) return in;
  const std::vector<int64_t> from = graft_order(flattened, in.shape()[0]);
  std::vector<float> out(in.values().size());
  for (size_t i = 0; i < out.size(); ++i) out[i] = in.data()[from[i]];
  return {in.shape(), std::move(out)};
}

std::vector<int64_t> keras_shape(const Shape& shape) {
  if (shape.flat) return {shape.channels};
  return {shape.height, shape.width, shape.channels};
}

class Builder {
 public:
  explicit Builder(const ModelFile& model)
      : model_(model), network_(model.metadata.network), shapes_(output_shapes(network_)) {}

  KerasGraph build() {
    for (const char* name : kOwnNames) names_.take(name);
    const std::vector<int64_t> size = keras_shape(shapes_.front());
    const KerasRef pixels = {add("InputLayer", "image", {}, size), 0};
    graph_.layers.back().calls.emplace_back();
    std::vector<KerasRef> views = {call(preprocessing(size), {pixels})};
    if (model_.metadata.test_views > 1) views.push_back(mirrored(views[0]));
    for (size_t i = 1; i < network_.layers.size(); ++i) views = layer(i, views);
    const std::vector<int64_t> classes = {static_cast<int64_t>(model_.metadata.classes.size())};
    const KerasRef logits =
        views.size() > 1
            ? call(add("Average", "logits", {}, classes), views)
            : call(add("Activation", "logits", {{"activation", "linear"}}, classes), views);
    graph_.output = add("Softmax", "probabilities", {{"axis", -1}}, classes);
    call(graph_.output, {logits});
    return std::move(graph_);
  }

 private:
  size_t add(std::string kind, std::string name, json config, std::vector<int64_t> output) {
    KerasLayer layer;
    layer.kind = std::move(kind);
    layer.name = std::move(name);
    layer.config = config.is_null() ? json::object() : std::move(config);
    layer.output = std::move(output);
    graph_.layers.push_back(std::move(layer));
    return graph_.layers.size() - 1;
  }
  KerasRef call(size_t layer, std::vector<KerasRef> inputs) {
    graph_.layers[layer].calls.push_back(std::move(inputs));
    return {layer, graph_.layers[layer].calls.size() - 1};
  }
  /// One layer for all views.
  std::vector<KerasRef> call_each(size_t layer, const std::vector<KerasRef>& views) {
    std::vector<KerasRef> out;
    out.reserve(views.size());
    for (const KerasRef& view : views) out.push_back(call(layer, {view}));
    return out;
  }
  void variable(size_t layer, std::string name, std::vector<int64_t> shape,
                std::function<Tensor()> values, bool may_be_half = true) {
    graph_.layers[layer].variables.push_back(
        {std::move(name), std::move(shape), may_be_half, std::move(values)});
  }
  const Tensor& weight(const Layer& layer, const char* role) {
    return model_.tensors.at(layer.name + "." + role);
  }

  /// Order of channels, scale and shift as one convolution of 1×1: what no other layer of both
  /// Keras 2 and 3 does for each channel apart.
  size_t preprocessing(const std::vector<int64_t>& size) {
    const size_t at = add("Conv2D", "preprocessing",
                          {{"filters", 3},
                           {"kernel_size", {1, 1}},
                           {"padding", "valid"},
                           {"activation", "linear"},
                           {"use_bias", true},
                           {"trainable", false}},
                          size);
    const Preprocessing& p = model_.metadata.preprocessing;
    std::vector<float> kernel(9, 0.0F);
    std::vector<float> bias;
    for (size_t c = 0; c < 3; ++c) {
      kernel[(p.bgr ? 2 - c : c) * 3 + c] = p.scale.at(c);
      bias.push_back(-p.shift.at(c));
    }
    variable(
        at, "kernel", {1, 1, 3, 3},
        [kernel] {
          return Tensor({1, 1, 3, 3}, kernel);
        },
        false);
    variable(
        at, "bias", {3}, [bias] { return Tensor({3}, bias); }, false);
    return at;
  }

  /// The mirror image: columns become the last axis, and a product with the matrix that has ones
  /// along its other diagonal exchanges them, exactly. Keras flips in training alone.
  KerasRef mirrored(const KerasRef& view) {
    const Shape& image = shapes_.front();
    const std::vector<int64_t> turned = {image.height, image.channels, image.width};
    const json dims = {{"dims", {1, 3, 2}}};
    const KerasRef columns =
        call(add("Permute", names_.take("mirror_columns"), dims, turned), {view});
    const int64_t width = image.width;
    const size_t product =
        add("Dense", names_.take("mirror"),
            {{"units", width}, {"activation", "linear"}, {"use_bias", false}, {"trainable", false}},
            turned);
    variable(
        product, "kernel", {width, width},
        [width] {
          std::vector<float> ones(static_cast<size_t>(width * width), 0.0F);
          for (int64_t i = 0; i < width; ++i) ones[i * width + width - 1 - i] = 1;
          return Tensor({width, width}, std::move(ones));
        },
        false);
    const KerasRef exchanged = call(product, {columns});
    return call(add("Permute", names_.take("mirror_rows"), dims, keras_shape(image)), {exchanged});
  }

  std::vector<KerasRef> layer(size_t index, const std::vector<KerasRef>& views) {
    const Layer& layer = network_.layers[index];
    const Shape& in = shapes_[layer.source()];
    const std::vector<int64_t> out = keras_shape(shapes_[index]);
    const std::string name = names_.take(keras_name(layer.name));
    graph_.modules.emplace(layer.name, name);
    const char* activation = layer.relu ? "relu" : "linear";
    switch (layer.kind) {
      case LayerKind::conv:
        return call_each(convolution(layer, name, out, activation), views);
      case LayerKind::dense:
        return call_each(dense(layer, name, out, activation), views);
      case LayerKind::batchnorm: {
        std::vector<KerasRef> normal = call_each(normalisation(layer, name, out), views);
        if (!layer.relu) return normal;
        return call_each(
            add("Activation", names_.take(name + "_relu"), {{"activation", "relu"}}, out), normal);
      }
      case LayerKind::maxpool:
        return call_each(add("MaxPooling2D", name,
                             {{"pool_size", {layer.window.kernel, layer.window.kernel}},
                              {"strides", {layer.window.stride, layer.window.stride}},
                              {"padding", "valid"}},
                             out),
                         views);
      case LayerKind::gap:
        return call_each(add("GlobalAveragePooling2D", name, {}, out), views);
      case LayerKind::gmp:
        return call_each(add("GlobalMaxPooling2D", name, {}, out), views);
      case LayerKind::stats:
        return statistics(name, in, views);
      case LayerKind::flatten:
        flattened_ = in;
        return call_each(add("Flatten", name, {}, out), views);
      case LayerKind::dropout:
        return call_each(add("Dropout", name, {{"rate", layer.rate}}, out), views);
      case LayerKind::input:
        break;
    }
    return views;
  }

  size_t convolution(const Layer& layer, const std::string& name, const std::vector<int64_t>& out,
                     const char* activation) {
    const Window& w = layer.window;
    const size_t at = add("Conv2D", name,
                          {{"filters", layer.outputs},
                           {"kernel_size", {w.kernel, w.kernel}},
                           {"strides", {w.stride, w.stride}},
                           {"groups", w.groups},
                           // With stride 1 Keras pads as the window says: half of it on each side.
                           {"padding", w.padding > 0 ? "same" : "valid"},
                           {"activation", activation},
                           {"use_bias", true}},
                          out);
    const Tensor& kernel = weight(layer, "weight");
    const std::vector<int64_t>& s = kernel.shape();
    variable(at, "kernel", {s[2], s[3], s[1], s[0]}, [&kernel] { return to_hwio(kernel); });
    const Tensor& bias = weight(layer, "bias");
    variable(at, "bias", bias.shape(), [&bias] { return bias; });
    return at;
  }

  size_t dense(const Layer& layer, const std::string& name, const std::vector<int64_t>& out,
               const char* activation) {
    const size_t at =
        add("Dense", name,
            {{"units", layer.outputs}, {"activation", activation}, {"use_bias", true}}, out);
    const Tensor& kernel = weight(layer, "weight");
    variable(at, "kernel", {kernel.shape()[1], kernel.shape()[0]},
             [&kernel, flattened = flattened_] { return to_dense(kernel, flattened); });
    const Tensor& bias = weight(layer, "bias");
    variable(at, "bias", bias.shape(), [&bias] { return bias; });
    flattened_.reset();
    return at;
  }

  size_t normalisation(const Layer& layer, const std::string& name,
                       const std::vector<int64_t>& out) {
    const size_t at =
        add("BatchNormalization", name, {{"axis", -1}, {"epsilon", layer.epsilon}}, out);
    for (const auto& [theirs, role] : {std::pair{"gamma", "weight"},
                                       {"beta", "bias"},
                                       {"moving_mean", "running_mean"},
                                       {"moving_variance", "running_var"}}) {
      const Tensor& values = weight(layer, role);
      variable(
          at, theirs, values.shape(),
          [&values, flattened = flattened_] { return in_keras_order(values, flattened); }, false);
    }
    return at;
  }

  /// Means, maxima and standard deviations of maps. Keras has no layer that takes a root, but one
  /// that divides by it: with d = x − mean, the mean of d · (d / deviation) is the deviation.
  std::vector<KerasRef> statistics(const std::string& name, const Shape& in,
                                   const std::vector<KerasRef>& views) {
    // Far below any variance that float32 tells from 0; where all of a map is alike, d is 0.
    constexpr double kEpsilon = 1e-12;
    const int64_t c = in.channels;
    const int64_t pixels = in.height * in.width;
    const auto part = [&](const char* kind, const char* what, json config,
                          std::vector<int64_t> shape) {
      return add(kind, names_.take(name + "_" + what), std::move(config), std::move(shape));
    };
    const size_t mean = part("GlobalAveragePooling2D", "mean", {}, {c});
    const size_t maximum = part("GlobalMaxPooling2D", "max", {}, {c});
    const size_t spread = part("Reshape", "pixels", {{"target_shape", {pixels, c}}}, {pixels, c});
    const size_t level = part("Reshape", "level", {{"target_shape", {1, c}}}, {1, c});
    const size_t off = part("Subtract", "off", {}, {pixels, c});
    const size_t turned = part("Permute", "maps", {{"dims", {2, 1}}}, {c, pixels});
    const size_t unit = part(
        "LayerNormalization", "unit",
        {{"axis", -1}, {"epsilon", kEpsilon}, {"center", false}, {"scale", false}}, {c, pixels});
    const size_t product = part("Multiply", "product", {}, {c, pixels});
    const size_t back = part("Permute", "back", {{"dims", {2, 1}}}, {pixels, c});
    const size_t deviation = part("GlobalAveragePooling1D", "deviation", {}, {c});
    const size_t all = add("Concatenate", name, {{"axis", -1}}, {3 * c});
    std::vector<KerasRef> out;
    for (const KerasRef& view : views) {
      const KerasRef average = call(mean, {view});
      const KerasRef d = call(turned, {call(off, {call(spread, {view}), call(level, {average})})});
      const KerasRef squares = call(product, {d, call(unit, {d})});
      out.push_back(
          call(all, {average, call(maximum, {view}), call(deviation, {call(back, {squares})})}));
    }
    return out;
  }

  const ModelFile& model_;
  const Network& network_;
  std::vector<Shape> shapes_;
  KerasGraph graph_;
  UniqueNames names_;
  Flattened flattened_;  // the maps of the flat vector at hand, until a dense layer takes it
};

/// A layer's configuration with what every layer has.
json config_of(const KerasLayer& layer) {
  json config = layer.config;
  config["name"] = layer.name;
  config["dtype"] = "float32";
  if (layer.kind != "InputLayer" && !config.contains("trainable")) config["trainable"] = true;
  return config;
}

json batched(const std::vector<int64_t>& shape) {
  json out = {nullptr};
  for (const int64_t extent : shape) out.push_back(extent);
  return out;
}

json history(const KerasGraph& graph, const KerasRef& ref) {
  return {graph.layers[ref.layer].name, ref.call, 0};
}

constexpr const char* kModelName = "graft";

}  // namespace

std::string keras_name(std::string name) {
  std::replace(name.begin(), name.end(), '/', '_');
  // HDF5 takes "." for the group itself; a name of Graft's own layers is taken.
  const bool taken = std::find(kOwnNames.begin(), kOwnNames.end(), name) != kOwnNames.end();
  return taken || name.find_first_not_of('.') == std::string::npos ? "layer_" + name : name;
}

KerasGraph keras_graph(const ModelFile& model) { return Builder(model).build(); }

json keras3_config(const KerasGraph& graph) {
  json layers = json::array();
  for (const KerasLayer& layer : graph.layers) {
    json nodes = json::array();
    for (const std::vector<KerasRef>& inputs : layer.calls) {
      if (inputs.empty()) continue;
      json tensors = json::array();
      for (const KerasRef& ref : inputs)
        tensors.push_back({{"class_name", "__keras_tensor__"},
                           {"config",
                            {{"shape", batched(graph.layers[ref.layer].output)},
                             {"dtype", "float32"},
                             {"keras_history", history(graph, ref)}}}});
      // Layers that merge take one argument, a list.
      json arguments = inputs.size() > 1 ? json::array({tensors}) : tensors;
      nodes.push_back({{"args", arguments}, {"kwargs", json::object()}});
    }
    json config = config_of(layer);
    if (layer.kind == "InputLayer") config["batch_shape"] = batched(layer.output);
    layers.push_back({{"module", "keras.layers"},
                      {"class_name", layer.kind},
                      {"config", config},
                      {"registered_name", nullptr},
                      {"name", layer.name},
                      {"inbound_nodes", nodes}});
  }
  return {{"module", "keras.src.models.functional"},
          {"class_name", "Functional"},
          {"config",
           {{"name", kModelName},
            {"trainable", true},
            {"layers", layers},
            {"input_layers", {{graph.layers.front().name, 0, 0}}},
            {"output_layers", {{graph.layers[graph.output].name, 0, 0}}}}},
          {"registered_name", "Functional"}};
}

json keras2_config(const KerasGraph& graph) {
  json layers = json::array();
  for (const KerasLayer& layer : graph.layers) {
    json nodes = json::array();
    for (const std::vector<KerasRef>& inputs : layer.calls) {
      if (inputs.empty()) continue;
      json node = json::array();
      for (const KerasRef& ref : inputs) {
        json from = history(graph, ref);
        from.push_back(json::object());
        node.push_back(from);
      }
      nodes.push_back(node);
    }
    json config = config_of(layer);
    if (layer.kind == "InputLayer") config["batch_input_shape"] = batched(layer.output);
    layers.push_back({{"class_name", layer.kind},
                      {"config", config},
                      {"name", layer.name},
                      {"inbound_nodes", nodes}});
  }
  return {{"class_name", "Functional"},
          {"config",
           {{"name", kModelName},
            {"trainable", true},
            {"layers", layers},
            {"input_layers", {{graph.layers.front().name, 0, 0}}},
            {"output_layers", {{graph.layers[graph.output].name, 0, 0}}}}}};
}

}  // namespace graft
