#include "weights/metadata.h"

#include <algorithm>
#include <limits>
#include <set>

#include "base/fail.h"
#include "base/json.h"
#include "dataset/labels.h"
#include "image/resample.h"

namespace graft {
namespace {

using nlohmann::json;

// 2 states the window and the inputs of each layer; in 1 they are the usual ones of its kind. 3 has
// several views of each image; models of one are written as 2, for earlier versions to read.
constexpr int kFormatVersion = 3;
constexpr int kVersionOfOneView = 2;
constexpr int kOldestFormatVersion = 1;
// 1000 layers, or a million labels, and room to spare.
constexpr JsonLimits kLimits = {.bytes = size_t{64} << 20, .values = 2'000'000, .depth = 16};
constexpr int64_t kMostInt = std::numeric_limits<int>::max();
constexpr int64_t kMostWindow = 1 << 14;

json layer_to_json(const Layer& layer, const Network& network) {
  json out = {{"kind", to_string(layer.kind)}, {"name", layer.name}};
  json inputs = json::array();
  for (const size_t i : layer.inputs) inputs.push_back(network.layers[i].name);
  if (!inputs.empty()) out["inputs"] = inputs;
  if (const Window& w = layer.window; w.kernel > 0) {
    out["kernel"] = w.kernel;
    out["stride"] = w.stride;
    out["padding"] = w.padding;
    if (layer.kind == LayerKind::conv) out["groups"] = w.groups;
  }
  if (layer.outputs != 0) out["outputs"] = layer.outputs;
  if (layer.kind == LayerKind::dropout) out["rate"] = layer.rate;
  if (layer.kind == LayerKind::batchnorm) out["epsilon"] = layer.epsilon;
  if (layer.relu) out["relu"] = true;
  if (layer.in_head) out["head"] = true;
  return out;
}

Layer layer_from_json(const JsonField& value, int version, const Network& before) {
  Layer layer;
  const JsonField kind_field = value.at("kind");
  const auto kind = layer_kind(kind_field.text());
  if (!kind) kind_field.refuse("unknown layer kind '" + clipped(kind_field.text()) + "'");
  layer.kind = *kind;
  layer.name = value.at("name").text();
  if (const auto outputs = value.find("outputs"))
    layer.outputs = static_cast<int>(outputs->integer(1, kMostInt));
  if (const auto rate = value.find("rate")) layer.rate = rate->number(0, 1);
  if (const auto epsilon = value.find("epsilon")) layer.epsilon = epsilon->number(0, 1);
  if (const auto relu = value.find("relu")) layer.relu = relu->boolean();
  if (const auto head = value.find("head")) layer.in_head = head->boolean();
  if (version == 1) return layer;
  if (const auto kernel = value.find("kernel")) {
    layer.window = {.kernel = static_cast<int>(kernel->integer(1, kMostWindow)),
                    .stride = static_cast<int>(value.at("stride").integer(1, kMostWindow)),
                    .padding = static_cast<int>(value.at("padding").integer(0, kMostWindow))};
    if (layer.kind == LayerKind::conv)
      layer.window.groups = static_cast<int>(value.at("groups").integer(1, kMostInt));
  }
  if (layer.kind == LayerKind::input) return layer;
  const JsonField inputs = value.at("inputs");
  for (const std::string& name : inputs.texts()) {
    const std::optional<size_t> at = find_layer(before, name);
    if (!at) inputs.refuse("'" + clipped(name) + "' is no layer before this one");
    layer.inputs.push_back(*at);
  }
  return layer;
}

json preprocessing_to_json(const Preprocessing& p) {
  return {{"channel_order", p.bgr ? "bgr" : "rgb"},
          {"scale", p.scale},
          {"shift", p.shift},
          {"resampling", to_string(p.resampling)},
          {"crop_ratio", p.crop_ratio}};
}

std::array<float, 3> channel_values(const JsonField& value) {
  std::array<float, 3> out{};
  const std::vector<JsonField> items = value.items(out.size());
  for (size_t c = 0; c < out.size(); ++c)
    out.at(c) = static_cast<float>(items[c].number(-kMostPixelScale, kMostPixelScale));
  return out;
}

Preprocessing preprocessing_from_json(const JsonField& value) {
  Preprocessing p;
  const JsonField order = value.at("channel_order");
  if (order.text() != "bgr" && order.text() != "rgb") order.refuse("neither bgr nor rgb");
  p.bgr = order.text() == "bgr";
  p.scale = channel_values(value.at("scale"));
  p.shift = channel_values(value.at("shift"));
  const JsonField resampling = value.at("resampling");
  const auto* const name =
      std::find(kResamplingNames.begin(), kResamplingNames.end(), resampling.text());
  if (name == kResamplingNames.end())
    resampling.refuse(fmt::format("none of {}", fmt::join(kResamplingNames, ", ")));
  p.resampling = static_cast<Resampling>(name - kResamplingNames.begin());
  const JsonField ratio = value.at("crop_ratio");
  p.crop_ratio = ratio.number(0, 4);
  if (p.crop_ratio > 0 && p.crop_ratio < 1) ratio.refuse("neither 0 nor from 1 to 4");
  return p;
}

Network network_from_json(const JsonField& value, int version) {
  Network network;
  network.backbone = value.at("backbone").text();
  const std::vector<JsonField> size = value.at("input_size").items(2);
  network.input_height = static_cast<int>(size[0].integer(1, kMostInt));
  network.input_width = static_cast<int>(size[1].integer(1, kMostInt));
  constexpr size_t kMostLayers = 1000;  // each looks its inputs up among those before it
  const std::vector<JsonField> layers = value.at("layers").items();
  if (layers.size() > kMostLayers)
    value.refuse(fmt::format("{} layers; at most {}", layers.size(), kMostLayers));
  for (const JsonField& layer : layers) {
    Layer read = layer_from_json(layer, version, network);
    if (version == 1)
      append(network, std::move(read));
    else
      network.layers.push_back(std::move(read));
  }
  try {
    validate(network);
  } catch (const Error& error) {
    value.refuse(error.what());
  }
  return network;
}

std::vector<std::string> classes_from_json(const JsonField& value, const Network& network) {
  std::vector<std::string> classes = value.texts();
  const std::set<std::string_view> unique(classes.begin(), classes.end());
  std::set<std::string> canonical;  // what looks the same is the same
  for (const std::string& label : classes) canonical.insert(canonical_label(label));
  if (unique.size() != classes.size() || canonical.size() != classes.size() || unique.contains(""))
    value.refuse("a label is empty or stands twice");
  const Layer& last = network.layers.back();
  if (!last.in_head) {
    if (!classes.empty()) value.refuse("labels without a head");
    return classes;
  }
  if (classes.empty()) value.refuse("there are no labels");
  // Whoever runs the network expects logits, one for each label, and nothing behind them.
  if (last.kind != LayerKind::dense || last.relu)
    value.refuse("labels of a network whose last layer is not dense without ReLU");
  if (classes.size() != static_cast<size_t>(last.outputs))
    value.refuse("the number of labels is not the network's number of outputs");
  return classes;
}

/// What others read of the free record.
void check_training(const JsonField& value, const ModelMetadata& metadata) {
  if (const auto temperature = value.find("temperature")) temperature->number(1e-30, 1e30);
  const auto fine_tune = value.find("fine_tune");
  if (!fine_tune) return;
  const std::string& text = fine_tune->text();
  if (metadata.classes.empty()) return;  // a folded backbone need not have that layer any more
  try {
    freeze_plan(metadata.network, text);
  } catch (const Error&) {
    fine_tune->refuse("'" + clipped(text) +
                      "' is neither a number of layers, 'all', nor a layer of the backbone");
  }
}

}  // namespace

std::string_view to_string(Resampling resampling) {
  return kResamplingNames.at(static_cast<size_t>(resampling));
}

std::map<std::string, std::string> format_metadata(const ModelMetadata& metadata) {
  json layers = json::array();
  for (const Layer& layer : metadata.network.layers)
    layers.push_back(layer_to_json(layer, metadata.network));
  const json network = {
      {"backbone", metadata.network.backbone},
      {"input_size", {metadata.network.input_height, metadata.network.input_width}},
      {"layers", layers}};
  const json provenance = {{"source", metadata.provenance.source},
                           {"md5", metadata.provenance.md5},
                           {"licence", metadata.provenance.licence}};
  std::map<std::string, std::string> fields = {
      {"graft_format", std::to_string(kVersionOfOneView)},
      {"network", network.dump()},
      {"classes", json(metadata.classes).dump()},
      {"preprocessing", preprocessing_to_json(metadata.preprocessing).dump()},
      {"provenance", provenance.dump()},
      {"training", metadata.training.dump()}};
  if (metadata.test_views != 1) {
    fields["graft_format"] = std::to_string(kFormatVersion);
    fields["test_views"] = std::to_string(metadata.test_views);
  }
  return fields;
}

ModelMetadata parse_metadata(const std::map<std::string, std::string>& metadata,
                             const std::string& file) {
  const auto version = metadata.find("graft_format");
  if (version == metadata.end())
    fail(ErrorKind::input,
         "{}: a safetensors file, but not a model written by graft (no graft_format in its "
         "metadata){}",
         file,
         metadata.contains("graft_export")
             ? "; it is one that 'graft export' wrote, of which 'graft weights convert' makes a "
               "model again"
             : "");
  int format = 0;
  for (int known = kOldestFormatVersion; known <= kFormatVersion; ++known)
    if (version->second == std::to_string(known)) format = known;
  if (format == 0)
    fail(ErrorKind::input,
         "{}: model format {} is not known to this version of graft, which reads formats {} to {}; "
         "update graft",
         file, clipped(version->second), kOldestFormatVersion, kFormatVersion);
  // Outlives the fields, which point into it.
  json document;
  const auto field = [&](const char* key) {
    const std::string name = fmt::format("{}: damaged model: its metadata", file);
    const auto at = metadata.find(key);
    if (at == metadata.end()) fail(ErrorKind::input, "{}: '{}' is missing", name, key);
    document = parse_json(at->second, fmt::format("{}: field '{}'", name, key), kLimits);
    return JsonField(document, name, key);
  };
  ModelMetadata out;
  out.network = network_from_json(field("network"), format);
  out.classes = classes_from_json(field("classes"), out.network);
  out.preprocessing = preprocessing_from_json(field("preprocessing"));
  const JsonField provenance = field("provenance");
  out.provenance = {provenance.at("source").text(), provenance.at("md5").text(),
                    provenance.at("licence").text()};
  if (format > kVersionOfOneView)
    out.test_views = static_cast<int>(field("test_views").integer(1, kMostTestViews));
  check_training(field("training"), out);
  out.training = std::move(document);
  return out;
}

std::string fine_tuned(const ModelMetadata& metadata) {
  const auto at = metadata.training.find("fine_tune");
  return at != metadata.training.end() && at->is_string() ? at->get<std::string>() : "0";
}

Provenance backbone_provenance(const ModelMetadata& metadata) {
  Provenance out = metadata.provenance;
  // A backbone without classes is nobody's run: its source says it already.
  if (metadata.classes.empty() || fine_tuned(metadata) == "0") return out;
  const auto images = metadata.training.find("training_images");
  out.source += fmt::format(
      ", fine-tuned on {} images of {} classes",
      images != metadata.training.end() && images->is_number_unsigned() ? images->dump() : "the",
      metadata.classes.size());
  return out;
}

}  // namespace graft
