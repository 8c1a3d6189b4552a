#include "graft/network.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <set>
#include <utility>

#include "base/fail.h"
#include "base/words.h"

namespace graft {
namespace {

constexpr std::array<std::pair<LayerKind, std::string_view>, 10> kKindNames = {{
    {LayerKind::input, "input"},
    {LayerKind::conv, "conv"},
    {LayerKind::batchnorm, "batchnorm"},
    {LayerKind::maxpool, "maxpool"},
    {LayerKind::gap, "gap"},
    {LayerKind::gmp, "gmp"},
    {LayerKind::stats, "stats"},
    {LayerKind::flatten, "flatten"},
    {LayerKind::dense, "dense"},
    {LayerKind::dropout, "dropout"},
}};

constexpr int kImageChannels = 3;
constexpr int kMostOutputs = 1 << 20;

/// What can be named of the layers before `end`.
std::vector<std::string> layer_names(const Network& network, size_t end) {
  std::vector<std::string> names;
  for (size_t i = 1; i < end; ++i) names.push_back(network.layers[i].name);
  return names;
}

/// Windows along an extent of maps.
int64_t windows(const Window& window, int64_t extent) {
  const int64_t room = extent + 2 * int64_t{window.padding} - window.kernel;
  return room < 0 ? 0 : room / window.stride + 1;
}

Shape output_shape(const Layer& layer, const Shape& in) {
  if (layer.window.stride < 1 || layer.window.kernel < 1 || layer.window.groups < 1)
    if (layer.kind == LayerKind::conv || layer.kind == LayerKind::maxpool)
      fail(ErrorKind::usage, "layer {}: its kernel, stride and groups start at 1", layer.name);
  const auto require = [&](bool flat) {
    if (in.flat != flat)
      fail(ErrorKind::usage, "layer {} ({}) cannot follow {} of shape {}", layer.name,
           to_string(layer.kind), in.flat ? "a flat vector" : "maps", to_string(in));
  };
  switch (layer.kind) {
    case LayerKind::conv:
    case LayerKind::maxpool: {
      require(false);
      const int64_t height = windows(layer.window, in.height);
      const int64_t width = windows(layer.window, in.width);
      if (height < 1 || width < 1)
        fail(ErrorKind::usage,
             "layer {} would {} a map of {}x{} to nothing; use a larger `input-size` or an earlier "
             "cut (`until`)",
             layer.name, layer.kind == LayerKind::conv ? "bring" : "pool", in.height, in.width);
      return {layer.kind == LayerKind::conv ? layer.outputs : in.channels, height, width, false};
    }
    case LayerKind::gap:
    case LayerKind::gmp:
      require(false);
      return {in.channels, 1, 1, true};
    case LayerKind::stats:
      require(false);
      return {3 * in.channels, 1, 1, true};
    case LayerKind::flatten:
      require(false);
      return {in.elements(), 1, 1, true};
    case LayerKind::dense:
      require(true);
      return {layer.outputs, 1, 1, true};
    case LayerKind::input:
    case LayerKind::batchnorm:
    case LayerKind::dropout:
      return in;
  }
  return in;
}

bool has_parameters(LayerKind kind) {
  return kind == LayerKind::conv || kind == LayerKind::dense || kind == LayerKind::batchnorm;
}

}  // namespace

std::string_view to_string(LayerKind kind) {
  for (const auto& [value, name] : kKindNames)
    if (value == kind) return name;
  return "?";
}

std::optional<LayerKind> layer_kind(std::string_view name) {
  for (const auto& [value, text] : kKindNames)
    if (text == name) return value;
  return std::nullopt;
}

std::string to_string(const Shape& shape) {
  return shape.flat ? fmt::format("({})", shape.channels)
                    : fmt::format("({}, {}, {})", shape.channels, shape.height, shape.width);
}

int64_t TensorSpec::elements() const {
  int64_t count = 1;
  for (const int64_t extent : shape) count *= extent;
  return count;
}

Window usual_window(LayerKind kind) {
  if (kind == LayerKind::conv) return {.kernel = 3, .stride = 1, .padding = 1};
  if (kind == LayerKind::maxpool) return {.kernel = 2, .stride = 2};
  return {};
}

void append(Network& network, Layer layer) {
  if (layer.window == Window()) layer.window = usual_window(layer.kind);
  if (layer.inputs.empty() && layer.kind != LayerKind::input)
    layer.inputs = {network.layers.size() - 1};
  network.layers.push_back(std::move(layer));
}

Network cut_after(Network network, std::string_view layer) {
  const std::optional<size_t> at = find_layer(network, layer);
  if (!at || *at == 0) {
    const std::vector<std::string> names = layer_names(network, network.layers.size());
    fail(ErrorKind::usage, "`until`: {} has no layer '{}'{}; its layers are: {}", network.backbone,
         clipped(layer), did_you_mean(layer, names), fmt::join(names, ", "));
  }
  network.layers.resize(*at + 1);
  return network;
}

std::vector<Shape> output_shapes(const Network& network) {
  std::vector<Shape> shapes;
  shapes.reserve(network.layers.size());
  const Shape image{kImageChannels, network.input_height, network.input_width, false};
  for (const Layer& layer : network.layers)
    shapes.push_back(
        output_shape(layer, layer.kind == LayerKind::input ? image : shapes.at(layer.source())));
  return shapes;
}

std::vector<TensorSpec> tensor_specs(const Network& network, size_t begin, size_t end) {
  const std::vector<Shape> shapes = output_shapes(network);
  std::vector<TensorSpec> specs;
  for (size_t i = std::max<size_t>(begin, 1); i < end; ++i) {
    const Layer& layer = network.layers[i];
    const int64_t in = shapes[layer.source()].channels;
    const int64_t out = shapes[i].channels;
    switch (layer.kind) {
      case LayerKind::conv:
        specs.push_back({layer.name + ".weight",
                         {out, in / layer.window.groups, layer.window.kernel, layer.window.kernel},
                         i});
        specs.push_back({layer.name + ".bias", {out}, i});
        break;
      case LayerKind::dense:
        specs.push_back({layer.name + ".weight", {out, in}, i});
        specs.push_back({layer.name + ".bias", {out}, i});
        break;
      case LayerKind::batchnorm:
        specs.push_back({layer.name + ".weight", {out}, i});
        specs.push_back({layer.name + ".bias", {out}, i});
        specs.push_back({layer.name + ".running_mean", {out}, i, false});
        specs.push_back({layer.name + ".running_var", {out}, i, false});
        break;
      default:
        break;
    }
  }
  return specs;
}

std::vector<TensorSpec> tensor_specs(const Network& network) {
  return tensor_specs(network, 0, network.layers.size());
}

std::vector<double> layer_flops(const Network& network) {
  const std::vector<Shape> shapes = output_shapes(network);
  std::vector<double> flops(network.layers.size(), 0.0);
  for (const TensorSpec& spec : tensor_specs(network)) {
    const LayerKind kind = network.layers[spec.layer].kind;
    if (spec.shape.size() < 2 || kind == LayerKind::batchnorm) continue;
    const Shape& out = shapes[spec.layer];
    flops[spec.layer] +=
        2.0 * static_cast<double>(spec.elements()) * static_cast<double>(out.height * out.width);
  }
  return flops;
}

std::optional<size_t> find_layer(const Network& network, std::string_view name) {
  for (size_t i = 0; i < network.layers.size(); ++i)
    if (network.layers[i].name == name) return i;
  return std::nullopt;
}

void check_extents(const Network& network) {
  // What engines and estimates multiply further, by batches and bytes, must stay countable.
  constexpr int64_t kMostElements = int64_t{1} << 40;
  const std::vector<Shape> shapes = output_shapes(network);
  for (size_t i = 0; i < shapes.size(); ++i)
    if (shapes[i].elements() > kMostElements)
      fail(ErrorKind::usage, "the output of layer {} is too large: {}", network.layers[i].name,
           to_string(shapes[i]));
  for (const TensorSpec& spec : tensor_specs(network))
    if (spec.elements() > kMostElements)
      fail(ErrorKind::usage, "layer {} has too many weights: {}", network.layers[spec.layer].name,
           fmt::join(spec.shape, " x "));
}

namespace {

void check_layer(const Layer& layer) {
  constexpr size_t kMostNameBytes = 200;
  const auto refuse = [&](const std::string& why) {
    fail(ErrorKind::input, "layer {} ({}) {}", layer.name, to_string(layer.kind), why);
  };
  const auto is_control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; };
  if (layer.name.empty() || layer.name.size() > kMostNameBytes ||
      std::any_of(layer.name.begin(), layer.name.end(), is_control))
    fail(ErrorKind::input,
         "a layer's name is empty, has over {} bytes, or holds control characters", kMostNameBytes);
  const bool drops = layer.kind == LayerKind::dropout;
  if (drops ? !(layer.rate >= 0 && layer.rate < 1) : layer.rate != 0)
    refuse(fmt::format("drops a fraction of {}", layer.rate));
  const bool normalises = layer.kind == LayerKind::batchnorm;
  if (normalises ? !(layer.epsilon > 0 && layer.epsilon < 1) : layer.epsilon != 0)
    refuse(fmt::format("has an epsilon of {}", layer.epsilon));
  const bool has_outputs = layer.kind == LayerKind::conv || layer.kind == LayerKind::dense;
  if (has_outputs ? layer.outputs < 1 || layer.outputs > kMostOutputs : layer.outputs != 0)
    refuse(fmt::format("has {} outputs", layer.outputs));
  if (layer.relu && !has_parameters(layer.kind)) refuse("cannot have a ReLU");
  const Window& w = layer.window;
  if (w != usual_window(layer.kind))
    refuse(
        fmt::format("has a window of {0}x{0}, stride {1}, padding {2}, groups {3}, which there "
                    "is no kernel for",
                    w.kernel, w.stride, w.padding, w.groups));
}

void check_list(const Network& network) {
  constexpr size_t kMostLayers = 1000;
  constexpr int kMostPixels = 16384;
  const auto refuse = [](const std::string& why) { throw Error(ErrorKind::input, why); };
  if (network.layers.empty() || network.layers.front().kind != LayerKind::input ||
      network.layers.size() > kMostLayers)
    refuse(fmt::format("the list must begin with the input layer and hold at most {} layers",
                       kMostLayers));
  if (network.layers.front().in_head) refuse("the input layer belongs to the head");
  if (network.input_height < 1 || network.input_width < 1 || network.input_height > kMostPixels ||
      network.input_width > kMostPixels)
    refuse(fmt::format("input size {}x{}; at most {} pixels a side", network.input_height,
                       network.input_width, kMostPixels));
  std::set<std::string_view> names;
  bool in_head = false;
  for (size_t i = 0; i < network.layers.size(); ++i) {
    const Layer& layer = network.layers[i];
    if (i > 0 && layer.kind == LayerKind::input) refuse("a second input layer");
    check_layer(layer);
    const bool reads_the_one_before = layer.inputs.size() == 1 && layer.inputs[0] + 1 == i;
    if (i == 0 ? !layer.inputs.empty() : !reads_the_one_before)
      refuse("layer " + layer.name + " does not read the layer before it and no other");
    if (!names.insert(layer.name).second) refuse("layer name '" + layer.name + "' is used twice");
    if (in_head && !layer.in_head) refuse("backbone layer " + layer.name + " behind the head");
    in_head = layer.in_head;
  }
}

}  // namespace

void validate(const Network& network) {
  try {
    check_list(network);
    check_extents(network);
  } catch (const Error& error) {
    fail(ErrorKind::input, "not a network that can run: {}", error.what());
  }
}

FreezePlan freeze_plan(const Network& network, std::string_view fine_tune) {
  size_t base = 0;  // layers of the backbone, as Keras counts them
  while (base < network.layers.size() && !network.layers[base].in_head) ++base;
  if (fine_tune == "all") return {0};
  size_t count = 0;
  const char* end = fine_tune.data() + fine_tune.size();
  const auto [at, error] = std::from_chars(fine_tune.data(), end, count);
  if (!fine_tune.empty() && at == end && error == std::errc())
    return {base - std::min(count, base)};
  if (!fine_tune.empty() && at == end && error == std::errc::result_out_of_range) return {0};
  const std::optional<size_t> layer = find_layer(network, fine_tune);
  if (!layer || *layer >= base) {
    const std::vector<std::string> names = layer_names(network, base);
    fail(ErrorKind::usage,
         "`fine-tune`: '{}' is neither 0, a number of layers, 'all', nor a layer "
         "of the backbone{}; its layers are: {}",
         clipped(fine_tune), did_you_mean(fine_tune, names), fmt::join(names, ", "));
  }
  return {*layer};
}

size_t frozen_prefix_end(const Network& network, const FreezePlan& plan) {
  size_t end = std::max<size_t>(plan.first_trainable, 1);
  while (end < network.layers.size() && !has_parameters(network.layers[end].kind) &&
         network.layers[end].kind != LayerKind::dropout)
    ++end;
  return end;
}

Summary summarize(const Network& network, const FreezePlan& plan) {
  const std::vector<Shape> shapes = output_shapes(network);
  Summary summary;
  for (size_t i = 0; i < network.layers.size(); ++i)
    summary.rows.push_back(
        {network.layers[i].name, std::string(to_string(network.layers[i].kind)), shapes[i]});
  for (const TensorSpec& spec : tensor_specs(network)) {
    SummaryRow& row = summary.rows[spec.layer];
    row.parameters += spec.elements();
    if (spec.trainable && spec.layer >= plan.first_trainable) row.trainable += spec.elements();
  }
  for (const SummaryRow& row : summary.rows) {
    summary.parameters += row.parameters;
    summary.trainable += row.trainable;
  }
  return summary;
}

}  // namespace graft
