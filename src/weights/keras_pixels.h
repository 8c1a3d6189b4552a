// What a Keras model does with pixels in front of its first layer: each operation is a scale and a
// shift of channels, in some order.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "graft/image.h"
#include "weights/keras_model.h"

namespace graft {

/// Channels of an image, each a channel of the RGB pixels times `scale` plus `offset`.
struct KerasPixels {
  struct Channel {
    int source = 0;
    double scale = 1;
    double offset = 0;
  };
  std::vector<Channel> channels = {{0}, {1}, {2}};
  bool split = false;    ///< one channel without an axis of its own (x[..., 0])
  bool changed = false;  ///< something was done
  bool unknown = false;  ///< by Python code that is not read

  /// As Graft has it; nothing where nothing was done or it is not known. Throws Error(input) where
  /// a channel is missing or stands twice; `file` begins the message.
  [[nodiscard]] std::optional<Preprocessing> preprocessing(const std::string& file) const;
};

/// One of Keras' preprocessing layers or operations on `inputs`; `values` are the layer's own, as
/// KerasValues gives them. Nothing where it is none that can be followed.
std::optional<KerasPixels> keras_pixels(const KerasNode& layer,
                                        const std::vector<KerasPixels>& inputs,
                                        const std::vector<std::vector<float>>& values);

/// Whether a layer is a convolution of 1×1 without activation that makes three channels: it works
/// on pixels, since a VGG has none such.
bool is_pixel_convolution(const KerasNode& layer);

/// Whether a layer does nothing but in training.
bool is_augmentation(const KerasNode& layer);

/// Whether a cast (Cast, tf.cast, ops.cast) is to floating-point numbers: one to whole numbers cuts
/// fractions off.
bool casts_to_floats(const KerasNode& layer);

}  // namespace graft
