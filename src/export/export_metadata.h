// What an exported file says of the model, whatever its format.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "weights/metadata.h"

namespace graft {

/// The fields of a model file's metadata (docs/formats.md) but its number of format, and in
/// `graft_export` that of exports: keys to JSON texts. `modules`: each layer's name in the file,
/// where that is another.
std::map<std::string, std::string> export_metadata(
    const ModelMetadata& metadata, const std::map<std::string, std::string>& modules = {});

/// The same as one JSON object.
nlohmann::json export_document(const std::map<std::string, std::string>& metadata);

}  // namespace graft
