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

/// The same as one JSON object, with a place for the file's hash of itself (weights/file_seal.h).
nlohmann::json export_document(const std::map<std::string, std::string>& metadata);

/// The record of a zip archive, which is its last entry: `listing` says what the others are.
std::string sealed_record(const std::map<std::string, std::string>& metadata,
                          const std::string& listing);

}  // namespace graft
