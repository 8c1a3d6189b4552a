// The saved classifier on disk: a safetensors file with the metadata of weights/metadata.h.
#pragma once

#include <filesystem>

#include "graft/classifier.h"
#include "weights/metadata.h"
#include "weights/safetensors.h"
#include "weights/tensor.h"

namespace graft {

struct ModelFile {
  ModelMetadata metadata;
  TensorMap tensors;
};

/// Reads and checks a model: every tensor present with the right shape, none else, all finite.
ModelFile read_model(const std::filesystem::path& path);
/// The same of a file that may be a backbone without head, and then has no classes.
ModelFile read_model_or_backbone(const std::filesystem::path& path);

/// What is public of a model's metadata.
ModelInfo to_info(ModelMetadata metadata);

/// Writes atomically.
void write_model(const std::filesystem::path& path, const ModelFile& model,
                 StoredType type = StoredType::f32);

}  // namespace graft
