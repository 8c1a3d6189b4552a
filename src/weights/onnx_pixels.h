// What an ONNX graph does to its input before the first convolution: preprocessing.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "graft/image.h"
#include "graft/recipe.h"

namespace graft {

/// Channels of the graph's input, each scaled and shifted, in some order.
struct OnnxPixels {
  struct Channel {
    int source = 0;  ///< the channel of the graph's input
    double scale = 1;
    double shift = 0;  ///< x = input · scale + shift
  };
  size_t input = 0;  ///< which of the graph's inputs
  std::vector<Channel> channels{{0}, {1}, {2}};
  size_t axis = 1;        ///< of the channels, of four
  bool padded = false;    ///< a row and a column of zeros on each side
  bool is_bytes = false;  ///< the input is uint8

  /// Elementwise, by one number or one for each channel.
  void scale(std::span<const float> by);
  void divide(std::span<const float> by);
  void shift(std::span<const float> by, double sign);
  /// The channels with these indices; those that there are not: nothing, and it is left alone.
  [[nodiscard]] bool select(std::span<const int64_t> indices);
};

/// x = input · scale − shift in the order of the network's channels; `bgr` says that this is the
/// opposite of the graph's input's.
struct OnnxAffine {
  bool bgr = false;
  std::array<double, 3> scale{1, 1, 1};
  std::array<double, 3> shift{0, 0, 0};
  bool is_bytes = false;

  [[nodiscard]] bool is_identity() const;
};

/// Nothing where it is not three channels, as they are or reversed.
std::optional<OnnxAffine> affine_of(const OnnxPixels& pixels);

/// How pixels are prepared, where what the graph does tells what it reads: bytes, or numbers that a
/// known preprocessing follows (Keras' caffe and tf, torchvision's, 1/255). Nothing: it may read
/// anything.
std::optional<Preprocessing> recognised(const OnnxAffine& affine);

/// The preprocessing of a graph that reads what `input` makes.
Preprocessing behind(const Preprocessing& input, const OnnxAffine& affine);

}  // namespace graft
