// Keras' HDF5 weight files: which of their weights are a backbone's.
#pragma once

#include <filesystem>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "graft/network.h"
#include "weights/tensor.h"

namespace graft {

struct KerasWeights {
  TensorMap tensors;                  ///< of layers [0, needed_end)
  std::vector<std::string> left_out;  ///< layers with weights that are not the backbone's
  bool by_order = false;  ///< its layers bore other names, and were known by order and shapes
};

/// Reads layers [0, needed_end) of `full` from a Keras weights file or whole-model file (.h5, Keras
/// 1 to 3), under their canonical names and in canonical layout: convolutions HWIO → OIHW, dense
/// (in, out) → (out, in), and where a dense layer follows `flatten` in `full`, its input is
/// permuted from H, W, C to C, H, W. The layers are found by name, beside others or inside a layer
/// that is itself a model; values of others are not read. Throws Error(input) for files that are
/// not such a file or point to other files, and with a table where a tensor is missing or of
/// another shape; else as H5File does.
KerasWeights read_keras_h5(const std::filesystem::path& path, const Network& full,
                           size_t needed_end, const std::stop_token& until = {});

/// The number of outputs of the file's layer `predictions`, or nothing.
std::optional<int> keras_top_classes(const std::filesystem::path& path);

}  // namespace graft
