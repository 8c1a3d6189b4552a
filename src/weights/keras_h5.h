// Keras' HDF5 weight files: which of their weights are a backbone's.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graft/network.h"
#include "weights/keras_layout.h"
#include "weights/keras_walk.h"
#include "weights/tensor.h"

namespace graft {

class H5File;

struct KerasWeights {
  TensorMap tensors;                  ///< of layers [0, needed_end)
  std::vector<std::string> left_out;  ///< layers with weights that are not the backbone's
  bool by_order = false;  ///< its layers bore other names, and were known by order and shapes
  KerasFront front{};     ///< what the file's model does with pixels, where it says that
};

/// Reads layers [0, needed_end) of `full` from a Keras weights file or whole-model file (.h5, Keras
/// 1 to 3), under their canonical names and in canonical layout: convolutions HWIO → OIHW, dense
/// (in, out) → (out, in), and where a dense layer follows `flatten` in `full`, its input is
/// permuted from H, W, C to C, H, W. The layers are found by name, beside others or inside a layer
/// that is itself a model; values of others are not read. Throws Error(input) for files that are
/// not such a file or point to other files, and with a table where a tensor is missing or of
/// another shape; likewise for a backbone with other activations, strides or poolings than VGG's,
/// where the file describes its model; else as H5File does.
KerasWeights read_keras_h5(H5File& file, const Network& full, size_t needed_end);

/// What a file has of a network, before its values are read.
struct KerasContents {
  ShapeMap shapes;                    ///< by canonical names; empty: nothing of it
  std::vector<std::string> left_out;  ///< as in KerasWeights
  bool by_order = false;              ///< likewise
};

/// Where the weights of layers [0, end) of a backbone are in a file, and the layers beside it.
struct KerasPlaces {
  std::map<std::string, size_t> backbone;  ///< canonical name → index into H5File::weights()
  std::vector<KerasPart> rest;             ///< in the file's order
};
/// Nothing where the file does not have these layers, all of them and whole.
std::optional<KerasPlaces> find_backbone(H5File& file, const Network& full, size_t end);

/// What a file has of a network.
KerasContents keras_contents(H5File& file, const Network& full, size_t needed_end);
/// Reads all weights, and hands each one's values to `take` with its name; of those that cannot be
/// read, why and no values.
void read_all_weights(H5File& file,
                      const std::function<void(const std::string& name, const std::string& problem,
                                               std::span<const float> values)>& take);

/// What the file's model does with pixels, where it has a description that says that.
KerasFront front_in(H5File& file);

/// Whether a canonical name is that of a convolution or BatchNorm of some VGG.
bool is_backbone_tensor(std::string_view name);

/// The number of outputs of the file's layer `predictions`, or nothing.
std::optional<int> keras_top_classes(const H5File& file);

}  // namespace graft
