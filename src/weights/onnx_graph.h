// From an ONNX graph to the straight list of layers that it is, by order and shape: names are
// whatever the exporter gave.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "weights/foreign_classifier.h"
#include "weights/onnx_file.h"
#include "weights/onnx_pixels.h"

namespace graft {

struct OnnxLayers {
  /// Without `preprocessing` and `labels`. Where `stopped` says so, the layers up to there.
  ForeignGraph graph;
  OnnxAffine input;  ///< what the graph itself does to the pixels that it reads
  /// Why the list ends before the graph does: what is no layer of Graft's, by operator and name.
  std::string stopped;
};

/// Follows the graph from the image on: through Transpose, the arithmetic of a preprocessing, the
/// layers that Graft has, and what exporters put between them (shapes, casts, identities). Reads no
/// weights but numbers for each channel. Throws Error(input) where there is no layer at all, or
/// more than one network that reads an image.
OnnxLayers follow(const std::shared_ptr<const OnnxFile>& file);

}  // namespace graft
