// The saved classifier on disk: a safetensors file with the metadata of weights/metadata.h.
#pragma once

#include <filesystem>

#include "weights/metadata.h"
#include "weights/safetensors.h"
#include "weights/tensor.h"

namespace graft {

struct ModelFile {
  ModelMetadata metadata;
  TensorMap tensors;
};

/// MODEL of the command line: a model file, or a run folder that holds model.safetensors.
std::filesystem::path resolve_model(const std::filesystem::path& path);

/// Reads and checks a model: every tensor present with the right shape, none else, all finite.
ModelFile read_model(const std::filesystem::path& path);

/// Writes atomically.
void write_model(const std::filesystem::path& path, const ModelFile& model,
                 StoredType type = StoredType::f32);

}  // namespace graft
