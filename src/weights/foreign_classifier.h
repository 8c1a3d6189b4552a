// A whole classifier from another program's file: its layers as the file has them, and the same as
// a network of Graft's. A reader for each format makes the first (`ForeignGraph`); assemble() makes
// the second, so that what a VGG is, how layers are called and how rows are ordered stands once.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "graft/image.h"
#include "graft/network.h"
#include "graft/recipe.h"
#include "weights/stored_tensors.h"
#include "weights/tensor.h"

namespace graft {

/// A layer that Graft has (network.h), under the name that the file gives it.
struct ForeignLayer {
  std::string name{};  ///< for messages
  LayerKind kind{};    ///< not input, not stats
  int outputs = 0;     ///< conv, dense
  double rate = 0;     ///< dropout
  double epsilon = 0;  ///< batchnorm
  bool relu = false;   ///< a ReLU follows (conv, batchnorm, dense)
  /// By role: "weight" (conv: out, in, 3, 3; dense: out, in), "bias", "running_mean",
  /// "running_var". Those that a file may do without are filled in: biases and means with 0,
  /// a BatchNorm's weight and variance with 1.
  std::map<std::string, StoredTensor> tensors{};
};

/// What the numbers of the last dense layer are.
enum class ForeignOutput : uint8_t {
  logits,   ///< of the classes, with or without a softmax behind them; one: of the second of two
  sigmoid,  ///< one, through a sigmoid: the probability of the second of two classes
};

/// A straight list of layers from the image to the classes, as a reader found it. The input layer,
/// layers that do nothing in inference and a softmax at the end are not in it; whatever Graft does
/// not have, the reader has refused by its name.
struct ForeignGraph {
  std::string file;    ///< printable; begins messages
  std::string family;  ///< whose file it is: "keras", "onnx", "torchvision", "timm"
  int height = 0;      ///< of the input in pixels; 0: the file does not say
  int width = 0;
  std::vector<ForeignLayer> layers;
  /// Whether a flatten goes through rows, columns, channels (Keras) and not channels first. Layers
  /// between it and the first dense layer, and that one's weight, have their numbers in that order.
  bool channels_last = false;
  ForeignOutput output = ForeignOutput::logits;
  std::optional<Preprocessing> preprocessing{};  ///< where the file tells
  std::optional<Resampling> resampling{};        ///< of a layer that resizes
  std::string resampling_note{};                 ///< a further note, where that is followed
  std::vector<std::string> labels{};             ///< where the file tells; in the order of outputs
  std::vector<std::string> notes{};  ///< what was left out or taken for what, a line each
};

/// The same as a network of Graft's. Copies share the tensors; values are read by read().
struct ForeignClassifier {
  /// Backbone, cut where the file's ends, and head; canonical names; the last layer is a dense one
  /// without ReLU, `predictions`, with two outputs or more.
  Network network;
  /// How the input's size is known: from the file; from the head, for maps that other sizes give
  /// too (this is the least); or not at all, and any will do.
  enum class Size : uint8_t { told, least, open } size = Size::open;
  std::optional<Preprocessing> preprocessing{};
  std::optional<Resampling> resampling{};  ///< where the file tells
  std::string resampling_note{};           ///< a further note, where that is followed
  std::vector<std::string> labels{};       ///< empty: to be asked for
  std::string family;
  std::vector<std::string> notes{};
  std::vector<StoredTensor> tensors{};  ///< one for each of tensor_specs(network), in its layout
  /// Where the file does not tell how its input is prepared, but computes something with it: the
  /// two together. Empty: it computes nothing.
  std::function<Preprocessing(const Preprocessing& asked)> behind{};
  std::optional<Provenance> provenance{};              ///< where the file tells
  int test_views = 1;                                  ///< ModelMetadata::test_views
  nlohmann::json training = nlohmann::json::object();  ///< ModelMetadata::training

  [[nodiscard]] int classes() const { return network.layers.back().outputs; }
  /// The values under canonical names. Throws Error(input) where one cannot be read or is not
  /// finite; `file` begins the message.
  [[nodiscard]] TensorMap read(const std::string& file) const;
};

/// Finds the VGG that the graph begins with, by the kinds, sizes and order of its layers: the one
/// with which it has most layers in common, at least a first block with its pooling. What follows
/// is the head. `size`: of the input, where the file does not say it; 0x0: as the head tells it, or
/// else the backbone's usual one. Throws Error(input) that names the file and the layer where the
/// graph is none of Graft's networks, a tensor is missing or of another shape, or the size of the
/// input does not fit.
ForeignClassifier assemble(const ForeignGraph& graph, const InputSize& size = {});

}  // namespace graft
