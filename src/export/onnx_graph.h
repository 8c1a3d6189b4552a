// The network's layer list as an ONNX graph.
#pragma once

#include <onnx/onnx_pb.h>

#include <memory>

#include "graft/export.h"
#include "model/model_file.h"

namespace graft {

/// Inputs, outputs, names and metadata are those of docs/export.md. Throws Error(input) where the
/// weights are more than an ONNX file holds.
std::unique_ptr<onnx::ModelProto> make_onnx(const ModelFile& model, const ExportOptions& options);

}  // namespace graft
