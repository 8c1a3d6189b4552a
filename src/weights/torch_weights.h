// Weights of torchvision's and timm's VGGs: which of a file's tensors are a backbone's.
#pragma once

#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "graft/network.h"
#include "weights/match.h"
#include "weights/stored_tensors.h"
#include "weights/torch_names.h"

namespace graft {

/// Why a tensor is no layer's but one that weights are computed from (pruning, weight_norm and the
/// like), and what to do about it in Python; empty: it is none.
std::string computed_from(const std::string& key, const StoredTensors& tensors);

/// A VGG among the tensors of a file. Its names may stand behind any prefix ("module.",
/// "model.backbone."), beside others, or be those of its `features` alone ("0.weight").
class TorchMatcher {
 public:
  /// `name` begins messages; `tensors` outlive the object. Throws Error(input) where no VGG, or
  /// more than one, is in them.
  TorchMatcher(std::string name, const StoredTensors& tensors);

  /// The tensors of layers [0, needed_end) of `full`, by canonical names. Throws Error(input) with
  /// a table where one is missing or of another shape.
  [[nodiscard]] TensorMap read(const Network& full, size_t needed_end) const;
  /// What the file has, by canonical names where `full` has it.
  [[nodiscard]] ShapeMap shapes(const Network& full) const;
  /// The same without the classifier.
  [[nodiscard]] ShapesFor convolutions() const;

  /// The file's tensor of a canonical name of `full`, or null.
  [[nodiscard]] const StoredTensor* find(const std::string& canonical, const Network& full) const;
  /// The file's name of a layer with tensors, for messages; of others the layer's own.
  [[nodiscard]] std::string module(const Layer& layer, const Network& full) const;

  [[nodiscard]] TorchNames names() const { return names_; }
  /// Outputs of the last layer of its classifier, or nothing.
  [[nodiscard]] std::optional<int> classes() const;
  /// The file's names of all tensors that are not of its `features`, in no order of its own.
  [[nodiscard]] std::vector<std::string> behind_features() const;
  /// Modules with tensors that are neither the VGG's nor its classifier's.
  [[nodiscard]] std::vector<std::string> left_out(const Network& full) const;

 private:
  [[nodiscard]] std::string ours(const std::string& name) const;

  std::string name_;
  const StoredTensors& tensors_;
  std::string prefix_;          // before "features."
  bool features_only_ = false;  // names are "0.weight" in place of "features.0.weight"
  /// Of such names: the number of the first dense layer behind them.
  size_t features_end_ = std::numeric_limits<size_t>::max();
  TorchNames names_ = TorchNames::torchvision;
};

}  // namespace graft
