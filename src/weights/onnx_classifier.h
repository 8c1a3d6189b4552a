// Whole classifiers from ONNX models.
#pragma once

#include <filesystem>

#include "weights/foreign_classifier.h"

namespace graft {

/// Reads a graph from its image to its classes; no weights yet. An export of Graft's own also says
/// its labels, its preprocessing, where its weights come from and its views. Throws Error(input)
/// where a node is no layer of Graft's, and names it.
ForeignClassifier read_onnx_classifier(const std::filesystem::path& path);

}  // namespace graft
