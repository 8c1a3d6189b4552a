#include "weights/onnx_weights.h"

#include <algorithm>
#include <map>
#include <set>
#include <span>
#include <utility>

#include "base/fail.h"
#include "weights/flattened_order.h"
#include "weights/metadata.h"
#include "weights/norm_epsilon.h"
#include "weights/onnx_constants.h"
#include "weights/own_export.h"
#include "weights/pixel_family.h"
#include "weights/tensor.h"

namespace graft {
namespace {

constexpr int kSide = 224;  // a size that every backbone takes; convolutions do not depend on it

bool same(const Layer& ours, const ForeignLayer& theirs) {
  if (ours.kind != theirs.kind || ours.relu != theirs.relu) return false;
  // The last layer of a top has as many outputs as there are classes.
  return ours.kind == LayerKind::dense || ours.outputs == theirs.outputs;
}

}  // namespace

std::optional<StoredSafetensors> own_model(const OnnxFile& file) {
  std::map<std::string, std::string> exported;
  for (const auto& [key, text] : file.metadata()) exported.emplace(key, text);
  std::optional<std::map<std::string, std::string>> metadata = own_metadata(exported);
  if (!metadata) return std::nullopt;
  StoredSafetensors out;
  out.metadata = *std::move(metadata);
  const Network network = parse_metadata(out.metadata, file.name()).network;
  for (const TensorSpec& spec : tensor_specs(network)) {
    const auto at = file.initializers().find(spec.name);
    if (at == file.initializers().end() || at->second.shape != spec.shape) return std::nullopt;
    out.tensors.emplace(spec.name, file.stored(at->second));
  }
  return out;
}

Preprocessing onnx_preprocessing(const OnnxLayers& layers, PixelFamily asked) {
  const std::optional<Preprocessing> told = recognised(layers.input);
  const bool open = told && has_torch_colours(*told);
  if (open && asked == PixelFamily::of_weights)
    fail(ErrorKind::usage, "{}: the file does not say {}", layers.graph.file, kOpenCrop);
  if (open && is_torch(asked)) return preprocessing_of(asked);
  if (told && asked != PixelFamily::of_weights)
    fail(ErrorKind::usage, "`preprocessing`: {} prepares its pixels itself; {}", layers.graph.file,
         open ? "torch or torch-stretched say whether images are cropped" : "leave the option out");
  if (told) return *told;
  if (asked == PixelFamily::of_weights)
    fail(ErrorKind::usage,
         "{}: an ONNX model that does not say how pixels were prepared for it; say it with "
         "`preprocessing` {}",
         layers.graph.file, kPixelFamilies);
  return behind(preprocessing_of(asked), layers.input);
}

OnnxMatcher::OnnxMatcher(OnnxLayers layers) : layers_(std::move(layers)) {
  for (const ForeignLayer& layer : layers_.graph.layers)
    if (layer.kind != LayerKind::dropout) list_.push_back(&layer);
  for (const std::string& name : backbone_names())
    best_pool_ = std::max(best_pool_, last_common_pool(backbone(name, kSide, kSide)));
  if (best_pool_ > 0) return;
  constexpr size_t kExamples = 5;
  std::vector<std::string> first;
  for (const ForeignLayer* layer : std::span(list_).first(std::min(kExamples, list_.size())))
    first.push_back(fmt::format("{} ({}{}{})", layer->name, to_string(layer->kind),
                                layer->outputs > 0 ? fmt::format(" {}", layer->outputs) : "",
                                layer->relu ? ", ReLU" : ""));
  fail(ErrorKind::input, "{}: no VGG: its layers, {}, are not the first block of one of {}{}",
       layers_.graph.file, fmt::join(first, ", "), fmt::join(backbone_names(), ", "),
       layers_.stopped.empty() ? "" : "; " + layers_.stopped);
}

/// How many layers from the first convolution on are a network's.
size_t OnnxMatcher::common(const Network& network) const {
  size_t count = 0;
  while (count < list_.size() && count + 1 < network.layers.size() &&
         same(network.layers[count + 1], *list_[count]))
    ++count;
  return count;
}

/// The number of layers up to the last pooling of them.
size_t OnnxMatcher::last_common_pool(const Network& network) const {
  size_t count = common(network);
  while (count > 0 && network.layers[count].kind != LayerKind::maxpool) --count;
  return count;
}

ShapeMap OnnxMatcher::shapes(const Network& full) const {
  ShapeMap out;
  const size_t count = common(full);
  // What is behind the last block that any VGG shares with the graph is a head. Within a block it
  // is another network's, which is said by names of its own.
  const size_t pool = last_common_pool(full);
  const bool is_best = pool == best_pool_;
  const bool in_top = pool < count && full.layers[count].kind != LayerKind::conv &&
                      full.layers[count].kind != LayerKind::batchnorm;
  const size_t ours = is_best && !in_top ? pool : count;
  for (size_t i = 0; i < list_.size(); ++i) {
    if (i >= ours && is_best) break;
    const bool known = i < ours;
    const ForeignLayer& layer = *list_[i];
    if (!known && layer.kind != LayerKind::conv && layer.kind != LayerKind::batchnorm &&
        layer.kind != LayerKind::maxpool)
      break;
    for (const auto& [role, tensor] : layer.tensors)
      out.emplace((known ? full.layers[i + 1].name : fmt::format("layer {}", i + 1)) + "." + role,
                  tensor.shape);
  }
  return out;
}

ShapesFor OnnxMatcher::convolutions() const {
  return [this](const Network& network) {
    ShapeMap found = shapes(network);
    std::erase_if(found, [&](const auto& item) {
      const std::optional<size_t> layer =
          find_layer(network, item.first.substr(0, item.first.rfind('.')));
      return layer && network.layers[*layer].kind == LayerKind::dense;
    });
    return found;
  };
}

TensorMap OnnxMatcher::read(const Network& full, size_t needed_end) const {
  check_tensors(full, needed_end, shapes(full), layers_.graph.file, fit_hint(convolutions(), full));
  const std::vector<Shape> sizes = output_shapes(full);
  TensorMap out;
  for (const TensorSpec& spec : tensor_specs(full, 0, needed_end)) {
    const Layer& layer = full.layers[spec.layer];
    const std::string role = spec.name.substr(layer.name.size() + 1);
    const ForeignLayer& theirs = *list_.at(spec.layer - 1);
    if (layer.kind == LayerKind::batchnorm && role == "weight" &&
        static_cast<float>(theirs.epsilon) != static_cast<float>(layer.epsilon)) {
      out.emplace(spec.name, with_epsilon(theirs.tensors.at("weight").read(),
                                          theirs.tensors.at("running_var").read(), theirs.epsilon,
                                          layer.epsilon));
      continue;
    }
    StoredTensor tensor = theirs.tensors.at(role);
    const bool flattened = layer.kind == LayerKind::dense && role == "weight" &&
                           full.layers[layer.source()].kind == LayerKind::flatten;
    if (flattened && layers_.graph.channels_last)
      tensor = channels_first(tensor, sizes[full.layers[layer.source()].source()]);
    out.emplace(spec.name, tensor.read());
  }
  return out;
}

std::optional<int> OnnxMatcher::classes() const {
  for (const std::string& name : backbone_names()) {
    if (name.starts_with("vgg-mini")) continue;  // it has no top
    const Network full = backbone(name, kSide, kSide, /*include_top=*/true);
    if (common(full) + 1 == full.layers.size() && list_.size() + 1 == full.layers.size())
      return list_.back()->outputs;
  }
  return std::nullopt;
}

std::vector<std::string> OnnxMatcher::left_out(const Network& full) const {
  std::vector<std::string> out;
  for (size_t i = last_common_pool(full); i < list_.size(); ++i)
    if (!list_[i]->tensors.empty()) out.push_back(list_[i]->name);
  if (!layers_.stopped.empty()) out.push_back("what follows from " + layers_.stopped);
  return out;
}

StoredTensors OnnxMatcher::tensors() const {
  StoredTensors out;
  for (size_t i = 0; i < list_.size(); ++i)
    for (const auto& [role, tensor] : list_[i]->tensors)
      // Names need not differ.
      if (!out.emplace(list_[i]->name + "." + role, tensor).second)
        out.emplace(fmt::format("{} ({}).{}", list_[i]->name, i, role), tensor);
  return out;
}

std::string OnnxMatcher::types() const {
  std::set<std::string_view> types;
  for (const ForeignLayer* layer : list_)
    if (const auto weight = layer->tensors.find("weight"); weight != layer->tensors.end())
      types.insert(to_string(weight->second.type));
  return fmt::format("{}", fmt::join(types, ", "));
}

}  // namespace graft
