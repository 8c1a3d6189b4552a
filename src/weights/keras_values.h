// Which of a Keras file's weights are a layer's of its description.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "weights/h5_message.h"
#include "weights/keras_walk.h"

namespace graft {

/// Finds weights by layer. Files of the older layout (.h5) say which layer each belongs to; the
/// newer (.weights.h5) number the layers of a class, in the order of the model.
class KerasLocator {
 public:
  /// All outlive the object. `file` begins messages.
  KerasLocator(const KerasModel& model, std::span<const H5Weight> weights, std::string file);

  /// A layer's weights, in the order in which Keras makes them; indices into `weights`.
  [[nodiscard]] std::vector<size_t> of(const KerasPath& path) const;
  /// The same by canonical role ("weight", "bias", "running_mean", "running_var"), for a Conv2D,
  /// Dense or BatchNormalization. Throws Error(input) where one is missing or cannot be read.
  [[nodiscard]] std::map<std::string, size_t> roles_of(const KerasPath& path) const;

 private:
  [[nodiscard]] std::vector<size_t> by_number(const KerasPath& path) const;
  [[nodiscard]] std::vector<size_t> by_name(const KerasPath& path) const;
  [[nodiscard]] std::vector<size_t> by_order(const KerasPath& path) const;
  [[noreturn]] void refuse(const KerasNode& layer, const std::string& why) const;

  const KerasModel& model_;
  std::span<const H5Weight> weights_;
  std::string file_;
  bool numbered_ = false;
  /// Of numbered files: a layer's group ("functional/conv2d_1") → its weights by their number.
  std::map<std::string, std::map<size_t, size_t>> groups_;
};

/// The roles that a layer has weights for, in the order in which Keras makes them.
std::vector<std::string> keras_roles(const KerasNode& layer);

}  // namespace graft
