// A Keras model's description (config.json, the attribute model_config) as layers that read each
// other, whichever version of Keras wrote it.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace graft {

struct KerasModel;

/// A layer of a model, or an operation that stands like one between layers.
struct KerasNode {
  std::string name;
  std::string kind;                 ///< its class: "Conv2D", "Add", …
  nlohmann::json config;            ///< an object; of a model without its layers
  std::vector<std::string> inputs;  ///< names of the layers that it reads, in order
  nlohmann::json arguments;         ///< what it is called with beside its inputs: constants, slices
  size_t calls = 0;                 ///< how often the model calls it
  std::shared_ptr<const KerasModel> model{};  ///< of a layer that is itself a model
};

struct KerasModel {
  std::string name;
  std::string code;               ///< a class of somebody's own, whose Python code is not read
  std::vector<KerasNode> layers;  ///< in the order in which Keras numbers them
  std::string input;              ///< a layer's name
  std::string output;             ///< likewise

  [[nodiscard]] const KerasNode* find(std::string_view layer) const;
};

/// Parses a description of a Sequential or Functional model (Keras 1.2 and later). `file` begins
/// messages. Throws Error(input) for what is none, or a model of several inputs or outputs.
KerasModel parse_keras_model(std::string_view description, const std::string& file);

/// A whole number of a configuration; 0 where it is none.
int64_t keras_integer(const nlohmann::json& value);
/// A setting of rows and columns, [3, 3] or 3: the same for both, or 0. `otherwise` where it is not
/// there.
int64_t keras_side(const nlohmann::json& config, const char* key, int64_t otherwise);
/// The name of a layer's activation, whether it stands there as text, function or layer; "linear"
/// for none. A ReLU that is cut off or leaks has no such name.
std::string keras_activation(const nlohmann::json& config);
/// The same of a ReLU layer's configuration.
std::string keras_relu(const nlohmann::json& config);

}  // namespace graft
