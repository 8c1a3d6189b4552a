// Whole classifiers from ONNX models.
#pragma once

#include <memory>

#include "weights/foreign_classifier.h"

namespace graft {

class OnnxFile;

/// Reads another program's graph from its image to its classes; no weights yet. Throws Error(input)
/// where a node is no layer of Graft's, and names it. `size`: as for assemble().
ForeignClassifier read_onnx_classifier(const std::shared_ptr<const OnnxFile>& file,
                                       const InputSize& size = {});

}  // namespace graft
