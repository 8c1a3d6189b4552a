#include "serve/v2.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "base/fail.h"
#include "base/json.h"

namespace graft::serving {
namespace {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little, "tensors are little-endian");

/// Three images of 224×224 as numbers, which take some 200 bytes of memory each while they are
/// read: more come as bytes.
constexpr JsonLimits kLimits{.bytes = size_t{64} << 20U, .values = 500'000, .depth = 16};
constexpr std::string_view kImage = "image";
constexpr std::string_view kEncoded = "encoded";
constexpr std::string_view kOutputs[] = {"probabilities", "logits", "label"};

uint32_t read_u32(std::string_view bytes) {
  uint32_t value = 0;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

void append_u32(std::string& out, uint32_t value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

/// Numbers in lists in lists.
void flatten(const JsonField& field, std::vector<uint8_t>& out, size_t most, int depth = 0) {
  if (!field.raw().is_array()) {
    if (out.size() == most) field.refuse("more numbers than its shape has");
    out.push_back(static_cast<uint8_t>(field.integer(0, 255)));
    return;
  }
  if (depth > 4) field.refuse("too deep");
  for (const JsonField& each : field.items()) flatten(each, out, most, depth + 1);
}

std::vector<int64_t> shape_of(const JsonField& input) {
  std::vector<int64_t> out;
  const JsonField shape = input.at("shape");
  for (const JsonField& extent : shape.items()) out.push_back(extent.integer(1, 1 << 20));
  return out;
}

/// The bytes of an input, taken from what follows the JSON; none: it has data in the JSON.
std::optional<std::string_view> binary_data(const JsonField& input, std::string_view& rest) {
  const auto parameters = input.find("parameters");
  const auto size = parameters ? parameters->find("binary_data_size") : std::nullopt;
  if (!size) return std::nullopt;
  const auto bytes = static_cast<size_t>(size->integer(0, std::numeric_limits<int64_t>::max()));
  if (bytes > rest.size()) size->refuse("more than what follows the JSON");
  const std::string_view out = rest.substr(0, bytes);
  rest.remove_prefix(bytes);
  return out;
}

void read_pixels(const JsonField& input, const std::vector<int64_t>& shape,
                 std::optional<std::string_view> binary, size_t most, InferRequest& out) {
  if (shape.size() != 4 || shape[3] != 3) input.at("shape").refuse("not [N, height, width, 3]");
  if (shape[0] > static_cast<int64_t>(most))
    input.at("shape").refuse(fmt::format("more than {} images", most));
  // Each extent is below 2^21, so that the product fits.
  const auto each = static_cast<size_t>(shape[1] * shape[2] * 3);
  const size_t all = each * static_cast<size_t>(shape[0]);
  if (all > kLimits.bytes * 4) input.at("shape").refuse("more pixels than a request may have");
  std::vector<uint8_t> numbers;
  if (!binary) {
    flatten(input.at("data"), numbers, all);
    binary = std::string_view(reinterpret_cast<const char*>(numbers.data()), numbers.size());
  }
  if (binary->size() != all)
    input.refuse(fmt::format("{} values; its shape has {}", binary->size(), all));
  for (int64_t i = 0; i < shape[0]; ++i) {
    const auto* first =
        reinterpret_cast<const uint8_t*>(binary->data()) + each * static_cast<size_t>(i);
    out.images.push_back(
        {fmt::format("image {}", i),
         {},
         Image{static_cast<int>(shape[2]), static_cast<int>(shape[1]), {first, first + each}}});
  }
}

void read_files(const JsonField& input, const std::vector<int64_t>& shape,
                std::optional<std::string_view> binary, size_t most, InferRequest& out) {
  if (shape.empty() || shape.size() > 2 || (shape.size() == 2 && shape[1] != 1))
    input.at("shape").refuse("not [N]");
  if (shape[0] > static_cast<int64_t>(most))
    input.at("shape").refuse(fmt::format("more than {} images", most));
  if (!binary)
    input.refuse(
        "files come as binary data: parameters.binary_data_size, and the bytes after the "
        "JSON, each behind its length in 4 bytes");
  for (int64_t i = 0; i < shape[0]; ++i) {
    if (binary->size() < 4 || read_u32(*binary) > binary->size() - 4)
      input.refuse("its bytes end early");
    out.images.push_back(
        {fmt::format("image {}", i), binary->substr(4, read_u32(*binary)), std::nullopt});
    binary->remove_prefix(4 + read_u32(*binary));
  }
  if (!binary->empty()) input.refuse("has more bytes than its elements");
}

bool flag(const std::optional<JsonField>& parameters, const std::string& name, bool otherwise) {
  const auto value = parameters ? parameters->find(name) : std::nullopt;
  return value ? value->boolean() : otherwise;
}

void read_outputs(const JsonField& document, InferRequest& out) {
  const bool binary = flag(document.find("parameters"), "binary_data_output", false);
  if (const auto outputs = document.find("outputs")) {
    for (const JsonField& output : outputs->items()) {
      const std::string& name = output.at("name").text();
      if (std::find(std::begin(kOutputs), std::end(kOutputs), name) == std::end(kOutputs))
        output.at("name").refuse("no output of the model: probabilities, logits, label");
      if (std::any_of(out.outputs.begin(), out.outputs.end(),
                      [&](const auto& known) { return known.name == name; }))
        output.at("name").refuse("asked for twice");
      const auto parameters = output.find("parameters");
      if (parameters && parameters->find("classification"))
        output.refuse("classification is not offered; take label and probabilities");
      out.outputs.push_back({name, flag(parameters, "binary_data", binary)});
    }
  }
  if (out.outputs.empty())
    for (const std::string_view name : kOutputs) out.outputs.push_back({std::string(name), binary});
}

json tensor(std::string_view name, std::string_view type, json shape) {
  return {{"name", name}, {"datatype", type}, {"shape", std::move(shape)}};
}

}  // namespace

json v2_metadata(const std::string& name, const std::string& version, const ModelInfo& info) {
  const auto classes = static_cast<int64_t>(info.classes.size());
  return {{"name", name},
          {"versions", {version}},
          {"platform", "graft"},
          {"inputs", json::array({tensor(kImage, "UINT8", {-1, -1, -1, 3})})},
          {"outputs", json::array({tensor("probabilities", "FP32", {-1, classes}),
                                   tensor("logits", "FP32", {-1, classes}),
                                   tensor("label", "BYTES", json::array({-1}))})}};
}

InferRequest parse_infer(std::string_view body, std::optional<size_t> json_length, size_t most) {
  if (json_length && *json_length > body.size())
    fail(ErrorKind::input, "Inference-Header-Content-Length is {}; the body has {} bytes",
         *json_length, body.size());
  std::string_view rest = json_length ? body.substr(*json_length) : std::string_view();
  const json parsed =
      parse_json(body.substr(0, json_length.value_or(body.size())), "the request", kLimits);
  const JsonField document(parsed, "the request");
  InferRequest out;
  if (const auto id = document.find("id")) out.id = id->text();
  const JsonField inputs = document.at("inputs");
  for (const JsonField& input : inputs.items()) {
    const std::string& name = input.at("name").text();
    const std::string& type = input.at("datatype").text();
    const std::vector<int64_t> shape = shape_of(input);
    const auto binary = binary_data(input, rest);
    if (!out.images.empty()) inputs.refuse("one input is expected, image or encoded");
    if (name == kImage && type == "UINT8")
      read_pixels(input, shape, binary, most, out);
    else if (name == kEncoded && type == "BYTES")
      read_files(input, shape, binary, most, out);
    else
      input.refuse("neither image, UINT8 [N, height, width, 3], nor encoded, BYTES [N]");
  }
  if (out.images.empty()) inputs.refuse("no input: image or encoded is expected");
  if (!rest.empty()) fail(ErrorKind::input, "{} bytes follow the last input", rest.size());
  read_outputs(document, out);
  return out;
}

InferReply format_infer(const InferRequest& request, const std::string& model,
                        const std::string& version, const std::vector<std::string>& classes,
                        const std::vector<ImageResult>& results) {
  json document = {{"model_name", model}, {"model_version", version}};
  if (!request.id.empty()) document["id"] = request.id;
  document["outputs"] = json::array();
  std::string bytes;
  bool has_binary = false;
  for (const InferRequest::Output& output : request.outputs) {
    const bool is_label = output.name == "label";
    json shape = {results.size()};
    if (!is_label) shape.push_back(classes.size());
    json described = tensor(output.name, is_label ? "BYTES" : "FP32", std::move(shape));
    json data = json::array();
    const size_t before = bytes.size();
    for (const ImageResult& result : results) {
      const Prediction& p = result.prediction;
      if (is_label) {
        const std::string& label = classes[p.best()];
        if (!output.binary) {
          data.push_back(label);
          continue;
        }
        append_u32(bytes, static_cast<uint32_t>(label.size()));
        bytes += label;
        continue;
      }
      const std::vector<float>& values = output.name == "logits" ? p.logits : p.probabilities;
      if (output.binary)
        bytes.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
      else
        for (const float value : values) data.push_back(value);
    }
    if (output.binary)
      described["parameters"] = {{"binary_data_size", bytes.size() - before}};
    else
      described["data"] = std::move(data);
    has_binary |= output.binary;
    document["outputs"].push_back(std::move(described));
  }
  InferReply reply{document.dump(-1, ' ', false, json::error_handler_t::replace), std::nullopt};
  if (has_binary) {
    reply.json_length = reply.body.size();
    reply.body += bytes;
  }
  return reply;
}

}  // namespace graft::serving
