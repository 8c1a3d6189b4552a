// A classifier as a Keras model: .keras (Keras 3) and .h5 (Keras 2 and 3).
#pragma once

#include <optional>

#include "base/file.h"
#include "graft/export.h"
#include "model/model_file.h"

namespace graft {

/// Both do not give the file its name, and keep its bytes in memory first.
void write_keras(AtomicFile& file, const ModelFile& model, const ExportOptions& options);
void write_keras_h5(AtomicFile& file, const ModelFile& model, const ExportOptions& options);

/// The network's tensors as Graft's own reader has them from such an .h5 file; nothing where that
/// reader cannot know what the file means: it finds layers by name, and knows the order of a
/// flattened map in the layer right behind alone.
std::optional<TensorMap> read_keras_export(const fs::path& file, const Network& network,
                                           const std::stop_token& stop);

}  // namespace graft
