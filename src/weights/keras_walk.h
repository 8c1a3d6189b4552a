// From a Keras model's description to the straight list of layers that it is, with what happens to
// pixels before the first.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "graft/image.h"
#include "weights/foreign_classifier.h"
#include "weights/keras_model.h"

namespace graft {

/// A layer of the description: the models that are layers around it, the outermost first, then it.
using KerasPath = std::vector<const KerasNode*>;

struct KerasStep {
  ForeignLayer layer;  ///< without tensors
  KerasPath path;
};

struct KerasWalk {
  int height = 0;  ///< of the input; 0: not said
  int width = 0;
  std::vector<KerasStep> steps;
  ForeignOutput output = ForeignOutput::logits;
  /// What the model does with pixels before the first layer; nothing where it does nothing, and
  /// they are prepared outside, or where that is Python code.
  std::optional<Preprocessing> preprocessing{};
  std::optional<Resampling> resampling{};
  std::string resampling_note{};  ///< how near Graft's resizing comes to the layer's
  std::vector<std::string> notes{};
};

/// Values of a layer in front of the network, in the order in which Keras numbers them.
using KerasValues = std::function<std::vector<std::vector<float>>(const KerasPath&)>;

/// Throws Error(input) that names the layer where one is not of Graft's, or reads what it cannot.
KerasWalk walk_keras_model(const KerasModel& model, const std::string& file,
                           const KerasValues& values);

/// What a model does with pixels in front of its first convolution.
struct KerasFront {
  std::optional<Preprocessing> preprocessing{};  ///< none: it does nothing, or what is not followed
  std::optional<Resampling> resampling{};
  std::string problem{};  ///< why it is not followed: "layer cast (Cast) …"
};
/// Whatever stands behind that convolution.
KerasFront front_of_keras_model(const KerasModel& model, const std::string& file,
                                const KerasValues& values);

}  // namespace graft
