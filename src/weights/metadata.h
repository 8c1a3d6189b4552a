// What a saved model says of itself: the network, labels, preprocessing, provenance.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "graft/image.h"
#include "graft/network.h"
#include "weights/tensor.h"

namespace graft {

/// Of a preprocessing's numbers. Keras' Normalization of a constant channel divides by 1e-7.
inline constexpr double kMostPixelScale = 1e8;

struct ModelMetadata {
  Network network;
  std::vector<std::string> classes;  ///< none: a backbone without head, to be used as --weights
  Preprocessing preprocessing;
  Provenance provenance;
  nlohmann::json training =
      nlohmann::json::object();  ///< an object: free summary of the training run
  int test_views = 1;            ///< of each image; 2: its mirror image too, logits averaged
};

/// As safetensors metadata: docs/formats.md describes every field.
std::map<std::string, std::string> format_metadata(const ModelMetadata& metadata);

/// Reads and validates every field. Throws Error(input) naming the file and the field.
ModelMetadata parse_metadata(const std::map<std::string, std::string>& metadata,
                             const std::string& file);

/// The --fine-tune that the model was trained with, as its record has it; "0" where it has none.
std::string fine_tuned(const ModelMetadata& metadata);

/// Of the backbone alone, for what is made of it: where its layers were fine-tuned, the source says
/// on what.
Provenance backbone_provenance(const ModelMetadata& metadata);

std::string_view to_string(Resampling resampling);

}  // namespace graft
