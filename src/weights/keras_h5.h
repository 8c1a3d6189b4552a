// Reader of Keras' HDF5 weight files.
#pragma once

#include <filesystem>

#include "graft/network.h"
#include "weights/tensor.h"

namespace graft {

/// True if the file begins with HDF5's signature.
bool is_hdf5(const std::filesystem::path& path);

/// Reads the tensors of a Keras weights file or whole-model file (.h5, Keras 1 to 3) under their
/// canonical names and in canonical layout: convolutions HWIO → OIHW, dense (in, out) → (out, in),
/// and where a dense layer follows `flatten` in `full`, its input is permuted from H, W, C to
/// C, H, W. Nothing is checked against the network but what the conversion needs.
/// Throws Error(input) for files that are not such a file, or that point to other files.
TensorMap read_keras_h5(const std::filesystem::path& path, const Network& full);

}  // namespace graft
