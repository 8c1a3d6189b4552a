#include "weights/keras_trunk.h"

#include <algorithm>
#include <vector>

#include "base/fail.h"
#include "base/file.h"
#include "base/words.h"
#include "weights/keras_pixels.h"
#include "weights/keras_walk.h"

namespace graft {
namespace {

[[noreturn]] void refuse(const std::string& file, const KerasNode& layer, const std::string& why) {
  fail(ErrorKind::input,
       "{}: layer {} ({}) of its backbone {}; VGG has 3x3 convolutions with stride 1, padding "
       "'same' "
       "and a ReLU, and poolings of 2x2, which Graft computes alone",
       file, clipped(printable(layer.name)), clipped(printable(layer.kind)), why);
}

/// Layers that VGG may have between its convolutions.
void check_between(const KerasNode& layer, const std::string& file) {
  if (layer.kind == "MaxPooling2D") {
    if (keras_side(layer.config, "pool_size", 2) != 2 ||
        keras_side(layer.config, "strides", 2) != 2)
      refuse(file, layer, "does not pool 2x2");
  } else if (layer.kind == "Activation" || layer.kind == "ReLU") {
    const std::string name =
        layer.kind == "ReLU" ? keras_relu(layer.config) : keras_activation(layer.config);
    if (name != "relu" && name != "linear")
      refuse(file, layer, fmt::format("is the activation {}", clipped(printable(name))));
  } else if (layer.kind != "BatchNormalization" && layer.kind != "ZeroPadding2D" &&
             layer.kind != "InputLayer" && layer.kind != "Dropout" &&
             !layer.kind.starts_with("SpatialDropout") && !is_augmentation(layer)) {
    refuse(file, layer, "stands between its convolutions");
  }
}

/// Whether a ReLU stands behind a layer, perhaps with a BatchNormalization between.
bool has_relu_behind(const KerasModel& model, const KerasNode& layer, bool norm = false) {
  for (const KerasNode& next : model.layers) {
    if (std::find(next.inputs.begin(), next.inputs.end(), layer.name) == next.inputs.end())
      continue;
    if (!norm && next.kind == "BatchNormalization" && has_relu_behind(model, next, true))
      return true;
    if (next.kind == "Activation" && keras_activation(next.config) == "relu") return true;
    if (next.kind == "ReLU" && keras_relu(next.config) == "relu") return true;
  }
  return false;
}

void check_convolution(const KerasModel& model, const KerasNode& layer, const std::string& file) {
  const std::string activation = keras_activation(layer.config);
  if (activation != "relu" && !(activation == "linear" && has_relu_behind(model, layer)))
    refuse(file, layer,
           activation == "linear"
               ? std::string("has no ReLU")
               : fmt::format("has the activation {}", clipped(printable(activation))));
  const std::vector<std::string>& inputs = layer.inputs;
  const KerasNode* before = inputs.size() == 1 ? model.find(inputs.front()) : nullptr;
  const bool padded = before != nullptr && before->kind == "ZeroPadding2D";
  const nlohmann::json padding = layer.config.value("padding", nlohmann::json("valid"));
  if (keras_side(layer.config, "strides", 1) != 1 ||
      keras_side(layer.config, "dilation_rate", 1) != 1 ||
      keras_side(layer.config, "groups", 1) != 1 || padding != (padded ? "valid" : "same"))
    refuse(file, layer, "has other strides or padding");
}

class Check {
 public:
  Check(const KerasLocator& locator, const std::set<size_t>& taken, const std::string& file)
      : locator_(locator), taken_(taken), file_(file) {}

  void model(const KerasModel& model, const KerasPath& around) {
    std::vector<const KerasNode*> convolutions;
    for (const KerasNode& layer : model.layers) {
      KerasPath path = around;
      path.push_back(&layer);
      if (layer.model != nullptr) this->model(*layer.model, path);
      if (layer.kind != "Conv2D") continue;
      const std::vector<size_t> weights = locator_.of(path);
      if (std::any_of(weights.begin(), weights.end(), [&](size_t i) { return taken_.contains(i); }))
        convolutions.push_back(&layer);
    }
    for (const KerasNode* layer : convolutions) check_convolution(model, *layer, file_);
    for (const KerasNode& layer : model.layers)
      if (layer.kind == "BatchNormalization" && is_taken(layer, around))
        check_order(model, layer, convolutions);
    // From each to the one before it.
    for (const KerasNode* layer : convolutions) {
      if (layer == convolutions.front()) continue;
      const KerasNode* at = layer;
      for (size_t steps = 0; steps < model.layers.size(); ++steps) {
        at = at->inputs.size() == 1 ? model.find(at->inputs.front()) : nullptr;
        if (at == nullptr ||
            std::find(convolutions.begin(), convolutions.end(), at) != convolutions.end())
          break;
        check_between(*at, file_);
        if (at->kind == "BatchNormalization") check_norm(*at, around);
      }
    }
  }

 private:
  /// Behind a convolution, and not behind its ReLU.
  void check_order(const KerasModel& model, const KerasNode& layer,
                   const std::vector<const KerasNode*>& convolutions) const {
    const KerasNode* at = &layer;
    for (size_t steps = 0; steps < model.layers.size(); ++steps) {
      at = at->inputs.size() == 1 ? model.find(at->inputs.front()) : nullptr;
      if (at == nullptr) return;
      const bool convolution =
          std::find(convolutions.begin(), convolutions.end(), at) != convolutions.end();
      const bool relu = at->kind == "ReLU" ? keras_relu(at->config) == "relu"
                                           : (convolution || at->kind == "Activation") &&
                                                 keras_activation(at->config) == "relu";
      if (relu) refuse(file_, layer, "stands behind a ReLU, and VGG's in front of one");
      if (convolution || at->kind == "MaxPooling2D" || at->kind == "Flatten") return;
    }
  }
  [[nodiscard]] bool is_taken(const KerasNode& layer, const KerasPath& around) const {
    KerasPath path = around;
    path.push_back(&layer);
    const std::vector<size_t> weights = locator_.of(path);
    return std::any_of(weights.begin(), weights.end(),
                       [&](size_t i) { return taken_.contains(i); });
  }

  /// Of all convolutions or of none: what is not taken would be passed over.
  void check_norm(const KerasNode& layer, const KerasPath& around) const {
    if (!is_taken(layer, around)) refuse(file_, layer, "normalises behind some of them only");
  }

  const KerasLocator& locator_;
  const std::set<size_t>& taken_;
  const std::string& file_;
};

void add_epsilons(const KerasModel& model, const KerasPath& around, const KerasLocator& locator,
                  std::map<size_t, double>& out) {
  for (const KerasNode& layer : model.layers) {
    KerasPath path = around;
    path.push_back(&layer);
    if (layer.model != nullptr) add_epsilons(*layer.model, path, locator, out);
    if (layer.kind != "BatchNormalization") continue;
    const auto epsilon = layer.config.find("epsilon");
    if (epsilon == layer.config.end() || !epsilon->is_number()) continue;
    for (const size_t index : locator.of(path)) out.emplace(index, epsilon->get<double>());
  }
}

}  // namespace

std::map<size_t, double> norm_epsilons(const KerasModel& model, const KerasLocator& locator) {
  std::map<size_t, double> out;
  add_epsilons(model, {}, locator, out);
  return out;
}

void require_vgg_layers(const KerasModel& model, const KerasLocator& locator,
                        const std::set<size_t>& taken, const std::string& file) {
  Check(locator, taken, file).model(model, {});
}

}  // namespace graft
