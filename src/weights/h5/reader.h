// Reads Keras' weights out of an HDF5 file in memory. The HDF5 library is not made for hostile
// files: this runs in graft-read-h5 alone, after confine().
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "weights/h5_message.h"

namespace graft {

class H5Reader {
 public:
  /// `image` is the whole file and outlives the reader. Everything throws Error(input).
  explicit H5Reader(std::span<const std::byte> image);
  ~H5Reader();
  H5Reader(const H5Reader&) = delete;
  H5Reader& operator=(const H5Reader&) = delete;

  /// All weights that layer_names and weight_names list, in their order.
  const std::vector<H5Weight>& weights() const;
  /// The text that Keras keeps of a whole model (attribute model_config): JSON, not looked at here.
  /// Empty where there is none.
  [[nodiscard]] const std::string& description() const;
  /// What `graft export` says of the model (attribute graft): JSON, not looked at here. Or empty.
  [[nodiscard]] const std::string& record() const;
  /// Bytes that the HDF5 library needs beside the values to read a weight.
  [[nodiscard]] size_t working_bytes(size_t index) const;
  /// Reads values as float32; `out` has as many as the weight's shape says.
  void read(size_t index, std::span<float> out) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace graft
