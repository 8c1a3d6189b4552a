#include "weights/metadata.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "graft/error.h"

namespace graft {
namespace {

using nlohmann::json;

constexpr int kFormatVersion = 1;

json layer_to_json(const Layer& layer) {
  json out = {{"kind", to_string(layer.kind)}, {"name", layer.name}};
  if (layer.outputs != 0) out["outputs"] = layer.outputs;
  if (layer.kind == LayerKind::dropout) out["rate"] = layer.rate;
  if (layer.kind == LayerKind::batchnorm) out["epsilon"] = layer.epsilon;
  if (layer.relu) out["relu"] = true;
  if (layer.in_head) out["head"] = true;
  return out;
}

Layer layer_from_json(const json& value) {
  Layer layer;
  const auto kind = layer_kind(value.at("kind").get<std::string>());
  if (!kind) throw Error(ErrorKind::input, "unknown layer kind " + value.at("kind").dump());
  layer.kind = *kind;
  layer.name = value.at("name").get<std::string>();
  layer.outputs = value.value("outputs", 0);
  layer.rate = value.value("rate", 0.0);
  layer.epsilon = value.value("epsilon", 0.0);
  layer.relu = value.value("relu", false);
  layer.in_head = value.value("head", false);
  return layer;
}

json preprocessing_to_json(const Preprocessing& p) {
  return {{"channel_order", p.bgr ? "bgr" : "rgb"},
          {"scale", p.scale},
          {"shift", p.shift},
          {"resampling", to_string(p.resampling)},
          {"crop_ratio", p.crop_ratio}};
}

Preprocessing preprocessing_from_json(const json& value) {
  Preprocessing p;
  const auto order = value.at("channel_order").get<std::string>();
  if (order != "bgr" && order != "rgb")
    throw Error(ErrorKind::input, "channel_order is neither bgr nor rgb");
  p.bgr = order == "bgr";
  p.scale = value.at("scale").get<std::array<float, 3>>();
  p.shift = value.at("shift").get<std::array<float, 3>>();
  for (size_t c = 0; c < 3; ++c)
    if (!std::isfinite(p.scale.at(c)) || !std::isfinite(p.shift.at(c)))
      throw Error(ErrorKind::input, "scale or shift is not finite");
  const auto resampling = value.at("resampling").get<std::string>();
  if (resampling != "nearest" && resampling != "bilinear")
    throw Error(ErrorKind::input, "resampling is neither nearest nor bilinear");
  p.resampling = resampling == "nearest" ? Resampling::nearest : Resampling::bilinear;
  p.crop_ratio = value.at("crop_ratio").get<double>();
  if (!(p.crop_ratio == 0 || (p.crop_ratio >= 1 && p.crop_ratio <= 4)))
    throw Error(ErrorKind::input, "crop_ratio is neither 0 nor from 1 to 4");
  return p;
}

Network network_from_json(const json& value) {
  Network network;
  network.backbone = value.at("backbone").get<std::string>();
  const auto size = value.at("input_size").get<std::array<int, 2>>();
  network.input_height = size[0];
  network.input_width = size[1];
  for (const json& layer : value.at("layers")) network.layers.push_back(layer_from_json(layer));
  validate(network);
  return network;
}

}  // namespace

std::string_view to_string(Resampling resampling) {
  return resampling == Resampling::nearest ? "nearest" : "bilinear";
}

std::map<std::string, std::string> format_metadata(const ModelMetadata& metadata) {
  json layers = json::array();
  for (const Layer& layer : metadata.network.layers) layers.push_back(layer_to_json(layer));
  const json network = {
      {"backbone", metadata.network.backbone},
      {"input_size", {metadata.network.input_height, metadata.network.input_width}},
      {"layers", layers}};
  const json provenance = {{"source", metadata.provenance.source},
                           {"md5", metadata.provenance.md5},
                           {"licence", metadata.provenance.licence}};
  return {{"graft_format", std::to_string(kFormatVersion)},
          {"network", network.dump()},
          {"classes", json(metadata.classes).dump()},
          {"preprocessing", preprocessing_to_json(metadata.preprocessing).dump()},
          {"provenance", provenance.dump()},
          {"training", metadata.training.dump()}};
}

ModelMetadata parse_metadata(const std::map<std::string, std::string>& metadata,
                             const std::string& file) {
  const auto version = metadata.find("graft_format");
  if (version == metadata.end())
    fail(ErrorKind::input,
         "{}: a safetensors file, but not a model written by graft (no "
         "graft_format in its metadata)",
         file);
  if (version->second != std::to_string(kFormatVersion))
    fail(ErrorKind::input,
         "{}: model format {} is not known to this version of graft, which reads "
         "format {}; update graft",
         file, version->second, kFormatVersion);
  std::string field;
  const auto parse = [&](const char* key) {
    field = key;
    const auto at = metadata.find(key);
    if (at == metadata.end()) throw Error(ErrorKind::input, "it is missing");
    return json::parse(at->second);
  };
  ModelMetadata out;
  try {
    out.network = network_from_json(parse("network"));
    out.classes = parse("classes").get<std::vector<std::string>>();
    const std::set<std::string> unique(out.classes.begin(), out.classes.end());
    if (unique.size() != out.classes.size() || unique.contains(""))
      throw Error(ErrorKind::input, "a label is empty or stands twice");
    const bool has_head = out.network.layers.back().in_head;
    if (has_head != !out.classes.empty())
      throw Error(ErrorKind::input, has_head ? "there are no labels" : "labels without a head");
    if (has_head &&
        static_cast<int64_t>(out.classes.size()) != output_shapes(out.network).back().channels)
      throw Error(ErrorKind::input, "the number of labels is not the network's number of outputs");
    out.preprocessing = preprocessing_from_json(parse("preprocessing"));
    const json provenance = parse("provenance");
    out.provenance = {provenance.at("source").get<std::string>(),
                      provenance.at("md5").get<std::string>(),
                      provenance.at("licence").get<std::string>()};
    out.training = parse("training");
    if (!out.training.is_object()) throw Error(ErrorKind::input, "not an object");
  } catch (const std::exception& error) {  // nlohmann's exceptions and ours
    fail(ErrorKind::input, "{}: damaged model: field '{}' of its metadata: {}", file, field,
         error.what());
  }
  return out;
}

}  // namespace graft
