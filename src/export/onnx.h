// A classifier as an ONNX file (docs/export.md).
#pragma once

#include <string>
#include <vector>

#include "base/file.h"
#include "graft/export.h"
#include "model/model_file.h"

namespace graft {

/// Writes the graph to `file` without giving it its name, and returns what checked it. Throws
/// Error(input) where the file would pass protobuf's 2 GB, or the checker refuses the graph.
std::vector<std::string> write_onnx(AtomicFile& file, const ModelFile& model,
                                    const ExportOptions& options);

}  // namespace graft
