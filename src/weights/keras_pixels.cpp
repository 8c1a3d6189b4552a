#include "weights/keras_pixels.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <set>
#include <utility>

#include "base/fail.h"

namespace graft {
namespace {

using nlohmann::json;
using Numbers = std::vector<double>;

constexpr size_t kChannels = 3;
constexpr size_t kMostChannels = 16;  // joined again and again they would be many

const json* member(const json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto at = object.find(key);
  return at == object.end() || at->is_null() ? nullptr : &*at;
}

/// All numbers of nested lists; nothing where something else is among them.
std::optional<Numbers> numbers(const json& value) {
  if (value.is_number()) return Numbers{value.get<double>()};
  // A constant tensor of Keras 3, or an array of NumPy's.
  for (const char* key : {"config", "value"})
    if (const json* inner = member(value, key); inner != nullptr) return numbers(*inner);
  if (!value.is_array()) return std::nullopt;
  Numbers out;
  for (const json& item : value) {
    const std::optional<Numbers> more = numbers(item);
    if (!more || out.size() + more->size() > kChannels) return std::nullopt;
    out.insert(out.end(), more->begin(), more->end());
  }
  return out;
}

/// One for each channel, or the one for all.
std::optional<double> number_of(const std::optional<Numbers>& numbers, size_t channel,
                                size_t channels) {
  if (!numbers || (numbers->size() != 1 && numbers->size() != channels)) return std::nullopt;
  return numbers->size() == 1 ? numbers->front() : numbers->at(channel);
}

std::optional<KerasPixels> affine(KerasPixels in, const std::optional<Numbers>& scale,
                                  const std::optional<Numbers>& offset) {
  const size_t count = in.channels.size();
  for (size_t c = 0; c < count; ++c) {
    const std::optional<double> s = number_of(scale, c, count);
    const std::optional<double> o = number_of(offset, c, count);
    if (!s || !o || !std::isfinite(*s) || !std::isfinite(*o)) return std::nullopt;
    in.channels[c].scale *= *s;
    in.channels[c].offset = in.channels[c].offset * *s + *o;
  }
  in.changed = true;
  return in;
}

std::optional<KerasPixels> normalise(const KerasPixels& in, const std::optional<Numbers>& mean,
                                     const std::optional<Numbers>& variance) {
  constexpr double kLeastDeviation = 1e-7;  // keras/src/backend: epsilon()
  if (!mean || !variance) return std::nullopt;
  Numbers scale;
  Numbers offset;
  for (size_t c = 0; c < in.channels.size(); ++c) {
    const std::optional<double> m = number_of(mean, c, in.channels.size());
    const std::optional<double> v = number_of(variance, c, in.channels.size());
    if (!m || !v || *v < 0) return std::nullopt;
    scale.push_back(1 / std::max(std::sqrt(*v), kLeastDeviation));
    offset.push_back(-*m * scale.back());
  }
  return affine(in, scale, offset);
}

std::optional<Numbers> as_numbers(const std::vector<float>& values) {
  if (values.empty() || values.size() > kChannels) return std::nullopt;
  return Numbers(values.begin(), values.end());
}

std::optional<KerasPixels> normalization(const KerasNode& layer, const KerasPixels& in,
                                         const std::vector<std::vector<float>>& values) {
  if (const json* invert = member(layer.config, "invert"); invert != nullptr && *invert != false)
    return std::nullopt;
  const json* mean = member(layer.config, "mean");
  const json* variance = member(layer.config, "variance");
  if (mean != nullptr && variance != nullptr)
    return normalise(in, numbers(*mean), numbers(*variance));
  if (values.size() < 2) return std::nullopt;
  return normalise(in, as_numbers(values[0]), as_numbers(values[1]));
}

/// A convolution of 1×1 that takes each channel from one: as graft export writes preprocessing.
std::optional<KerasPixels> convolution(const KerasNode& layer, const KerasPixels& in,
                                       const std::vector<std::vector<float>>& values) {
  const size_t count = in.channels.size();
  if (!is_pixel_convolution(layer) || in.split || count != kChannels || values.empty() ||
      values[0].size() != count * count || (values.size() > 1 && values[1].size() != count))
    return std::nullopt;
  KerasPixels out = in;
  for (size_t o = 0; o < count; ++o) {
    std::optional<size_t> from;
    for (size_t i = 0; i < count; ++i) {
      const float weight = values[0][i * count + o];
      if (weight == 0) continue;
      if (from || !std::isfinite(weight)) return std::nullopt;
      from = i;
    }
    if (!from) return std::nullopt;
    const double scale = values[0][*from * count + o];
    const double offset = values.size() > 1 ? values[1][o] : 0;
    if (!std::isfinite(offset)) return std::nullopt;
    const KerasPixels::Channel& source = in.channels[*from];
    out.channels[o] = {source.source, source.scale * scale, source.offset * scale + offset};
  }
  out.changed = true;
  return out;
}

/// x[..., i] takes a channel out, x[..., ::-1] turns their order round.
std::optional<KerasPixels> slice(KerasPixels in, const json& spec) {
  if (in.split || !spec.is_array() || spec.empty()) return std::nullopt;
  const json& last = spec.back();
  size_t open = 0;  // "..." in place of any number of axes
  for (size_t i = 0; i + 1 < spec.size(); ++i) {
    const json* own = member(spec[i], "config");
    const json& item = own == nullptr ? spec[i] : *own;
    const bool all = member(item, "start") == nullptr && member(item, "stop") == nullptr &&
                     member(item, "step") == nullptr && item.is_object();
    if (!all) return std::nullopt;
    const json* kind = member(spec[i], "class_name");
    if (kind != nullptr && *kind == "__ellipsis__") ++open;
  }
  // Another axis is none of channels: of rows or columns it turns the image.
  if (open == 0 ? spec.size() != 4 : open > 1 || spec.size() > 4) return std::nullopt;
  in.changed = true;
  if (last.is_number_integer()) {
    const auto index = last.get<int64_t>();
    const auto count = static_cast<int64_t>(in.channels.size());
    if (index < -count || index >= count) return std::nullopt;
    in.channels = {in.channels[static_cast<size_t>(index < 0 ? index + count : index)]};
    in.split = true;
    return in;
  }
  const json* config = member(last, "config");  // Keras 3: a slice with its own config
  const json& bounds = config == nullptr ? last : *config;
  const json* step = member(bounds, "step");
  if (step == nullptr || *step != -1 || member(bounds, "start") != nullptr ||
      member(bounds, "stop") != nullptr)
    return std::nullopt;
  std::reverse(in.channels.begin(), in.channels.end());
  return in;
}

std::optional<KerasPixels> join(const std::vector<KerasPixels>& inputs, bool split) {
  KerasPixels out;
  out.channels.clear();
  out.changed = true;
  for (const KerasPixels& in : inputs) {
    if (in.split != split || out.channels.size() + in.channels.size() > kMostChannels)
      return std::nullopt;
    out.channels.insert(out.channels.end(), in.channels.begin(), in.channels.end());
  }
  return out;
}

/// The name of an operation without the module: "nn.bias_add", "math.truediv", "Add".
std::string operation(const KerasNode& layer) {
  const json* function = member(layer.config, "function");
  std::string name =
      function != nullptr && function->is_string() ? function->get<std::string>() : layer.kind;
  name.erase(0, name.rfind('.') + 1);
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return name;
}

/// The constant of an operation with two operands, and whether it stands first.
std::optional<std::pair<Numbers, bool>> operand(const KerasNode& layer) {
  bool seen_input = false;
  std::optional<std::pair<Numbers, bool>> found;
  const auto look = [&](const json& value) {
    if (member(value, "input") != nullptr) {
      seen_input = true;
    } else if (std::optional<Numbers> constant = numbers(value); constant && !found) {
      found.emplace(std::move(*constant), !seen_input);
    }
  };
  const json* args = member(layer.arguments, "args");
  if (args != nullptr)
    for (const json& value : *args) look(value);
  const json* keywords = member(layer.arguments, "kwargs");
  if (keywords != nullptr)
    for (const char* key : {"x", "x1", "y", "x2", "bias", "value"})
      if (const json* value = member(*keywords, key); value != nullptr) look(*value);
  return found;
}

std::optional<KerasPixels> arithmetic(const std::string& name, const KerasNode& layer,
                                      const KerasPixels& in) {
  const std::optional<std::pair<Numbers, bool>> constant = operand(layer);
  if (!constant) return std::nullopt;
  const Numbers& value = constant->first;
  const bool first = constant->second;
  const auto each = [&](const std::function<double(double)>& of) {
    Numbers out = value;
    std::transform(out.begin(), out.end(), out.begin(), of);
    return out;
  };
  if (name == "add" || name == "bias_add" || name == "addv2") return affine(in, Numbers{1}, value);
  if (name == "subtract" || name == "sub")
    return first ? affine(in, Numbers{-1}, value)
                 : affine(in, Numbers{1}, each([](double v) { return -v; }));
  if (name == "multiply" || name == "mul") return affine(in, value, Numbers{0});
  if ((name == "divide" || name == "truediv" || name == "truedivide" || name == "realdiv") &&
      !first)
    return affine(in, each([](double v) { return 1 / v; }), Numbers{0});
  return std::nullopt;
}

/// Whether a Lambda runs Keras' own function for VGG, which its name and module say.
bool is_vgg_function(const KerasNode& layer) {
  const json* function = member(layer.config, "function");
  if (function == nullptr) return false;
  const std::string text = function->dump();
  const json* module = member(layer.config, "module");
  const std::string all = text + (module == nullptr ? "" : module->dump());
  // Keras 2 keeps the function's code, which is not read, and the module that it is defined in,
  // which has no other function of pixels.
  const json* type = member(layer.config, "function_type");
  const bool code = function->is_array() && type != nullptr && *type == "lambda";
  return (code || text.find("preprocess_input") != std::string::npos) &&
         (all.find("applications.vgg16") != std::string::npos ||
          all.find("applications.vgg19") != std::string::npos);
}

KerasPixels vgg_function(KerasPixels in) {
  std::reverse(in.channels.begin(), in.channels.end());
  const Preprocessing keras = keras_preprocessing();
  for (size_t c = 0; c < in.channels.size(); ++c)
    in.channels[c].offset -= static_cast<double>(keras.shift.at(c % kChannels));
  in.changed = true;
  return in;
}

}  // namespace

std::optional<Preprocessing> KerasPixels::preprocessing(const std::string& file) const {
  std::set<int> sources;
  for (const Channel& channel : channels) sources.insert(channel.source);
  const bool rgb =
      channels.size() == kChannels && channels[0].source == 0 && channels[1].source == 1;
  const bool bgr =
      channels.size() == kChannels && channels[0].source == 2 && channels[1].source == 1;
  if (split || sources.size() != kChannels || (!rgb && !bgr))
    fail(ErrorKind::input,
         "{}: the model brings the channels of its pixels into an order that is neither RGB nor "
         "BGR, which Graft does not have",
         file);
  if (unknown || !changed) return std::nullopt;
  Preprocessing out;
  out.bgr = bgr;
  for (size_t c = 0; c < kChannels; ++c) {
    out.scale.at(c) = static_cast<float>(channels[c].scale);
    out.shift.at(c) = static_cast<float>(0 - channels[c].offset);
  }
  return out;
}

bool is_pixel_convolution(const KerasNode& layer) {
  const json* filters = member(layer.config, "filters");
  return layer.kind == "Conv2D" && filters != nullptr && *filters == kChannels &&
         keras_side(layer.config, "kernel_size", 0) == 1 &&
         keras_side(layer.config, "strides", 1) == 1 &&
         keras_side(layer.config, "groups", 1) == 1 && keras_activation(layer.config) == "linear";
}

bool is_augmentation(const KerasNode& layer) {
  static const std::set<std::string> kOthers = {
      "GaussianNoise", "GaussianDropout",       "AugMix", "CutMix", "MixUp",
      "RandAugment",   "ActivityRegularization"};
  return (layer.kind.starts_with("Random") && layer.kind != "RandomCrop") ||
         kOthers.contains(layer.kind);
}

bool casts_to_floats(const KerasNode& layer) {
  const auto floats = [](const json* type) {
    if (type == nullptr) return true;
    const json* name = type;  // a policy: {"config": {"name": "float32"}}
    if (const json* config = member(*type, "config"); config != nullptr)
      name = member(*config, "name");
    return name != nullptr && name->is_string() &&
           name->get<std::string>().find("float") != std::string::npos;
  };
  const json* keywords = member(layer.arguments, "kwargs");
  const json* args = member(layer.arguments, "args");
  const json* type = keywords == nullptr ? nullptr : member(*keywords, "dtype");
  if (type == nullptr && args != nullptr && args->is_array() && args->size() > 1)
    type = &args->at(1);
  return floats(type) && floats(member(layer.config, "dtype"));
}

std::optional<KerasPixels> keras_pixels(const KerasNode& layer,
                                        const std::vector<KerasPixels>& inputs,
                                        const std::vector<std::vector<float>>& values) {
  if (inputs.empty()) return std::nullopt;
  const std::string name = operation(layer);
  if (name == "stack") return join(inputs, true);
  if (name == "concat" || name == "concatenate") return join(inputs, false);
  if (inputs.size() != 1) return std::nullopt;
  const KerasPixels& in = inputs.front();
  if (layer.kind == "Rescaling") {
    const json* scale = member(layer.config, "scale");
    const json* offset = member(layer.config, "offset");
    return affine(in, scale == nullptr ? Numbers{1} : numbers(*scale),
                  offset == nullptr ? Numbers{0} : numbers(*offset));
  }
  if (layer.kind == "Normalization") return normalization(layer, in, values);
  if (layer.kind == "Conv2D") return convolution(layer, in, values);
  if (layer.kind == "Lambda") {
    if (is_vgg_function(layer)) return vgg_function(in);
    KerasPixels out = in;
    out.unknown = out.changed = true;
    return out;
  }
  if (name == "cast" && !casts_to_floats(layer)) return std::nullopt;
  if (name == "cast" || name == "identity" || name == "casttofloat32") return in;
  if (name == "getitem") {
    const json* keywords = member(layer.arguments, "kwargs");
    const json* spec = keywords == nullptr ? nullptr : member(*keywords, "slice_spec");
    const json* args = member(layer.arguments, "args");
    if (spec == nullptr && args != nullptr && args->is_array() && args->size() == 2)
      spec = &args->at(1);
    return spec == nullptr ? std::nullopt : slice(in, *spec);
  }
  return arithmetic(name, layer, in);
}

}  // namespace graft
