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

/// A backbone alone: weights by layer, without the model's description, as Keras publishes them
/// without top.
void write_keras_trunk(AtomicFile& file, const ModelFile& backbone, const ExportOptions& options);

}  // namespace graft
