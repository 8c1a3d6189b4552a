// Weights from ONNX models: which layers of a graph are a backbone's, and how pixels come to it.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "graft/network.h"
#include "graft/recipe.h"
#include "weights/match.h"
#include "weights/onnx_graph.h"
#include "weights/safetensors.h"

namespace graft {

/// What `graft export` wrote: tensors by canonical names, and the metadata of a model of Graft's.
/// Nothing: they are not those of its record. Whether the graph computes what the record says is
/// not looked at: own_export() knows it by the file's hash.
std::optional<StoredSafetensors> own_model(const OnnxFile& file);

/// How pixels are prepared for a graph: as it does it itself where that is recognised, else as
/// `asked`, with what the graph does behind that. Throws Error(usage) where it must be asked for
/// and was not, and where it was and must not be.
Preprocessing onnx_preprocessing(const OnnxLayers& layers, PixelFamily asked);

/// The VGG at the beginning of a graph, known by the order, the kinds and the shapes of its layers.
class OnnxMatcher {
 public:
  /// Throws Error(input) where the graph does not begin with the first block of a VGG.
  explicit OnnxMatcher(OnnxLayers layers);
  OnnxMatcher(const OnnxMatcher&) = delete;
  OnnxMatcher& operator=(const OnnxMatcher&) = delete;

  /// The tensors of layers [0, needed_end) of `full`, by canonical names. Throws Error(input) with
  /// a table where one is missing or of another shape.
  [[nodiscard]] TensorMap read(const Network& full, size_t needed_end) const;
  /// What the graph has, by canonical names where `full` has it.
  [[nodiscard]] ShapeMap shapes(const Network& full) const;
  /// The same without the classifier.
  [[nodiscard]] ShapesFor convolutions() const;
  /// Outputs of the last layer of its classifier, where it is a VGG's own (flatten, fc1, fc2,
  /// predictions).
  [[nodiscard]] std::optional<int> classes() const;
  /// Layers behind the VGG, and where the graph was left.
  [[nodiscard]] std::vector<std::string> left_out(const Network& full) const;
  [[nodiscard]] std::string types() const;  ///< of the values: "float32"
  /// All of its layers, by the names that the file gives these.
  [[nodiscard]] StoredTensors tensors() const;

  [[nodiscard]] const OnnxLayers& layers() const { return layers_; }

 private:
  [[nodiscard]] size_t common(const Network& network) const;
  [[nodiscard]] size_t last_common_pool(const Network& network) const;

  OnnxLayers layers_;
  std::vector<const ForeignLayer*> list_;  // without dropouts, which do nothing here
  size_t best_pool_ = 0;  // the most blocks that any VGG has in common with it, in layers
};

}  // namespace graft
