// Keras' whole models: a classifier with its head.
#pragma once

#include <filesystem>
#include <optional>
#include <stop_token>

#include "weights/foreign_classifier.h"

namespace graft {

/// Reads what model.save('….h5') or model.save('….keras') wrote: a VGG, inlined or as a model
/// within the model, with what stands before and behind it. Nothing where the file has weights
/// alone, without a description of the model. Throws as parse_keras_model, walk_keras_model and
/// H5File do. The graph's tensors keep the file open.
std::optional<ForeignGraph> read_keras_classifier(const std::filesystem::path& path,
                                                  const std::stop_token& until = {});

/// The description of the model in a file, as JSON; empty where it has none. H5File must not be
/// needed for it otherwise.
std::string keras_description(const std::filesystem::path& path);

}  // namespace graft
