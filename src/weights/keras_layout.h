// How the weights of a Keras file make layers, and these models: by the file's own names alone.
#pragma once

#include <map>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "weights/h5_message.h"

namespace graft {

/// Where a weight stands: in the layer of that name, inside a layer that is a model itself, or in
/// several of them ("vgg16"; "encoder/vgg16"), or in none ("").
struct KerasPlace {
  std::string model;
  std::string layer;
};

/// A layer: its weights by canonical role, as indices into H5File::weights().
struct KerasPart {
  std::string layer;
  std::map<std::string, size_t> roles;
};

/// Of a class of somebody's own Keras 3 stores layers by the names of attributes, in alphabetical
/// order, which need not be that in which they compute. Throws Error(input) where shapes do not
/// tell such layers apart.
void require_known_order(std::span<const H5Weight> weights, const std::string& file);

class KerasLayout {
 public:
  /// The weights outlive the object. `order` has the layers' names as the model's description has
  /// them; empty: it has none.
  KerasLayout(std::span<const H5Weight> weights, std::span<const std::string> order);

  /// Whether a group has the weights of one layer: it is that layer, renamed, and no model with
  /// layers in it, whatever its weights are called.
  [[nodiscard]] bool is_single(const std::string& group) const { return single_.contains(group); }
  /// Whether layers stand by class and number (.weights.h5, .keras) and not in the model's order.
  [[nodiscard]] bool is_numbered() const { return numbered_; }
  /// Where a weight stands, whatever the names: "conv2d_3/kernel" in layer "functional".
  [[nodiscard]] KerasPlace place_of(const H5Weight& weight) const;
  /// The layers of each model in the file, in the description's order, or else in the file's. (In a
  /// model that is a layer of another the weights that train stand before all others.)
  [[nodiscard]] std::map<std::string, std::vector<KerasPart>> parts() const;

 private:
  std::span<const H5Weight> weights_;
  void sort(std::vector<KerasPart>& model) const;

  std::map<std::string, size_t> rank_;  // by layer
  std::set<std::string> single_;
  bool numbered_ = false;
};

}  // namespace graft
