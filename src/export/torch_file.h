// A classifier's tensors as PyTorch keeps a state_dict: a .pth file (zip) or safetensors.
#pragma once

#include "base/file.h"
#include "graft/export.h"
#include "model/model_file.h"

namespace graft {

/// Both write under torch_modules()' names and do not give the file its name.
void write_torch(AtomicFile& file, const ModelFile& model, const ExportOptions& options);
void write_torch_safetensors(AtomicFile& file, const ModelFile& model,
                             const ExportOptions& options);

}  // namespace graft
