#include "weights/keras_model.h"

#include <algorithm>
#include <cctype>
#include <set>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "base/json.h"
#include "base/words.h"

namespace graft {
namespace {

using nlohmann::json;

// A VGG19 in three models within each other is some 30 levels deep and has some 5,000 values.
constexpr JsonLimits kLimits = {.bytes = size_t{8} << 20U, .values = 500'000, .depth = 80};
constexpr size_t kMostLayers = 2000;
constexpr size_t kMostNesting = 8;

/// A name as messages may show it.
std::string shown(const std::string& name) { return clipped(printable(name)); }

const json* member(const json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto at = object.find(key);
  return at == object.end() ? nullptr : &*at;
}

std::string text_of(const json& object, const char* key) {
  const json* value = member(object, key);
  return value != nullptr && value->is_string() ? value->get<std::string>() : "";
}

/// [name, node, tensor] or with keywords behind: how Keras 2 refers to a layer's output.
bool is_reference(const json& value) {
  return value.is_array() && (value.size() == 3 || value.size() == 4) && value[0].is_string() &&
         value[1].is_number_integer() && (value.size() == 3 || value[3].is_object());
}

/// Whether a layer or model is of a class of somebody's own, which may bear the name of one of
/// Keras': it is registered in a package, or stands in a module of another library or of none.
bool is_own_class(const json& entry) {
  for (const char* key : {"class_name", "registered_name"}) {
    const std::string name = text_of(entry, key);
    const size_t package = name.rfind('>');
    if (package != std::string::npos && name.substr(0, package) != "Keras") return true;
  }
  const auto module = entry.find("module");
  if (module == entry.end()) return false;  // Keras 2
  if (!module->is_string()) return true;
  const auto& text = module->get_ref<const std::string&>();
  return !text.starts_with("keras") && !text.starts_with("tf_keras") &&
         !text.starts_with("tensorflow");
}

class Parser {
 public:
  explicit Parser(std::string file) : file_(std::move(file)) {}

  KerasModel model(const json& description, size_t depth) {
    const json* config = member(description, "config");
    if (config == nullptr || depth > kMostNesting) refuse("the description of a model is missing");
    // Keras 2.2.2 and earlier have a Sequential's layers in place of its config.
    const json* layers = config->is_array() ? config : member(*config, "layers");
    if (layers == nullptr || !layers->is_array() || layers->empty())
      refuse(
          "a model in it has no layers (it is of a class of its own, whose Python code says how "
          "they are connected)");
    KerasModel out;
    out.name = text_of(*config, "name");
    if (is_own_class(description)) out.code = text_of(description, "class_name");
    const json* const input = member(*config, "input_layers");
    const bool sequential = input == nullptr;
    for (const json& entry : *layers) {
      out.layers.push_back(layer(entry, depth));
      if (++count_ > kMostLayers) refuse(fmt::format("over {} layers", kMostLayers));
    }
    std::set<std::string> names;
    for (const KerasNode& known : out.layers)
      if (!names.insert(known.name).second) refuse("two layers are called " + shown(known.name));
    if (sequential) {
      chain(out, *config);
    } else {
      out.input = end_of(*input, "inputs", out);
      const json* const output = member(*config, "output_layers");
      out.output = output == nullptr ? "" : end_of(*output, "outputs", out);
    }
    if (out.find(out.output) == nullptr || out.find(out.input) == nullptr)
      refuse("the model's input or output is none of its layers");
    return out;
  }

 private:
  [[noreturn]] void refuse(const std::string& why) const {
    fail(ErrorKind::input, "{}: its description of the model is not one that Keras writes: {}",
         file_, why);
  }

  KerasNode layer(const json& entry, size_t depth) {
    KerasNode out;
    out.kind = text_of(entry, "class_name");
    const json* config = member(entry, "config");
    if (config == nullptr || out.kind.empty()) refuse("a layer without class or config");
    out.name = text_of(entry, "name");
    if (out.name.empty()) out.name = text_of(*config, "name");
    if (config->is_array() || member(*config, "layers") != nullptr) {
      out.model = std::make_shared<const KerasModel>(model(entry, depth + 1));
      if (out.name.empty()) out.name = out.model->name;
      out.config = json::object();
    } else {
      if (!config->is_object()) refuse("a layer's config is no object");
      out.config = *config;
    }
    // No layer of Keras' is called so: it is refused by its name.
    if (out.model == nullptr && is_own_class(entry) && out.kind.find('>') == std::string::npos)
      out.kind = "own class " + out.kind;
    if (out.model != nullptr || out.kind.starts_with("Keras>"))
      out.kind.erase(0, out.kind.rfind('>') + 1);
    if (out.name.empty()) refuse("a layer without a name");
    if (const json* nodes = member(entry, "inbound_nodes"); nodes != nullptr && nodes->is_array())
      read_calls(*nodes, out);
    return out;
  }

  void read_calls(const json& nodes, KerasNode& out) {
    out.calls = nodes.size();
    if (nodes.empty()) return;
    const json& call = nodes.front();
    out.arguments = {{"args", json::array()}, {"kwargs", json::object()}};
    json& args = out.arguments["args"];
    json& keywords = out.arguments["kwargs"];
    if (call.is_object()) {  // Keras 3
      if (const json* given = member(call, "args"); given != nullptr) args = *given;
      if (const json* given = member(call, "kwargs"); given != nullptr) keywords = *given;
    } else if (is_reference(call)) {  // an operation of one input
      args.push_back(call);
    } else {
      args = call;
    }
    json more = json::object();  // keywords that stand with an input
    number_inputs(args, more, out.inputs);
    if (!keywords.is_object()) keywords = json::object();
    for (json& item : keywords) number_inputs(item, more, out.inputs);
    json rest = json::object();
    for (json& item : more) number_inputs(item, rest, out.inputs);
    keywords.update(more);
  }

  /// Puts {"input": i} in the place of every reference to a layer, and constants in that of theirs.
  void number_inputs(json& value, json& keywords, std::vector<std::string>& inputs) {
    if (is_reference(value)) {
      const json reference = value;
      if (reference.size() == 4) keywords.update(reference[3]);
      if (reference[0] == "_CONSTANT_VALUE") {
        value = reference[2];
        return;
      }
      value = {{"input", inputs.size()}};
      inputs.push_back(reference[0].get<std::string>());
    } else if (value.is_array()) {
      for (json& item : value) number_inputs(item, keywords, inputs);
    } else if (text_of(value, "class_name") == "__keras_tensor__") {
      const json* config = member(value, "config");
      const json* history = config == nullptr ? nullptr : member(*config, "keras_history");
      if (history == nullptr || !is_reference(*history)) refuse("a tensor of no layer");
      std::string name = history->at(0).get<std::string>();
      value = {{"input", inputs.size()}};
      inputs.push_back(std::move(name));
    }
  }

  /// A Sequential: each layer reads the one before it.
  void chain(KerasModel& model, const json& config) {
    if (model.layers.front().kind != "InputLayer") {
      KerasNode input;
      input.name = "(input)";
      input.kind = "InputLayer";
      input.config = json::object();
      const json* shape = member(model.layers.front().config, "batch_input_shape");
      if (shape == nullptr) shape = member(config, "build_input_shape");
      if (shape != nullptr) input.config["batch_shape"] = *shape;
      model.layers.insert(model.layers.begin(), std::move(input));
    }
    for (size_t i = 1; i < model.layers.size(); ++i) {
      KerasNode& layer = model.layers[i];
      layer.calls = 1;
      layer.inputs = {model.layers[i - 1].name};
      layer.arguments = {{"args", {{{"input", 0}}}}, {"kwargs", json::object()}};
    }
    model.input = model.layers.front().name;
    model.output = model.layers.back().name;
  }

  std::string end_of(const json& value, const char* what, const KerasModel& model) {
    if (is_reference(value)) return value[0].get<std::string>();
    if (!value.is_array() || value.empty()) refuse(fmt::format("a model without {}", what));
    if (value.size() > 1)
      fail(ErrorKind::input,
           "{}: its model {} has {} {}; Graft's classifiers read one image and give one list of "
           "classes",
           file_, shown(model.name), value.size(), what);
    if (!is_reference(value[0])) refuse(fmt::format("a model without {}", what));
    return value[0][0].get<std::string>();
  }

  std::string file_;
  size_t count_ = 0;
};

}  // namespace

const KerasNode* KerasModel::find(std::string_view layer) const {
  const auto at = std::find_if(layers.begin(), layers.end(),
                               [&](const KerasNode& l) { return l.name == layer; });
  return at == layers.end() ? nullptr : &*at;
}

KerasModel parse_keras_model(std::string_view description, const std::string& file) {
  const json document = parse_json(description, file + ": the description of its model", kLimits);
  return Parser(file).model(document, 0);
}

int64_t keras_integer(const json& value) {
  constexpr double kMost = 1e9;
  if (value.is_number_integer()) return value.get<int64_t>();
  if (!value.is_number_float()) return 0;
  const auto number = value.get<double>();
  return number > -kMost && number < kMost ? static_cast<int64_t>(number) : 0;
}

int64_t keras_side(const json& config, const char* key, int64_t otherwise) {
  const json* value = member(config, key);
  if (value == nullptr || value->is_null()) return otherwise;
  if (!value->is_array()) return keras_integer(*value);
  return value->size() == 2 && (*value)[0] == (*value)[1] ? keras_integer((*value)[0]) : 0;
}

std::string keras_relu(const json& config) {
  const auto is_zero = [&](const char* key) {
    const json* value = member(config, key);
    return value == nullptr || value->is_null() || *value == 0;
  };
  const json* most = member(config, "max_value");
  const bool plain = (most == nullptr || most->is_null()) && is_zero("negative_slope") &&
                     is_zero("threshold") && is_zero("alpha");
  return plain ? "relu" : "a ReLU that is cut off or leaks";
}

std::string keras_activation(const json& config) {
  const json* value = member(config, "activation");
  if (value == nullptr || value->is_null()) return "linear";
  if (value->is_string()) return value->get<std::string>();
  std::string kind = text_of(*value, "class_name");
  if (kind == "function") return text_of(*value, "config");
  const json* inner = member(*value, "config");
  if (kind == "ReLU") return inner == nullptr ? "relu" : keras_relu(*inner);
  std::transform(kind.begin(), kind.end(), kind.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return kind;
}

}  // namespace graft
