// What `graft export` wrote, read back as the model that it was: in every format the file has a
// record of that model beside weights under the format's own names (docs/export.md).
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <stop_token>
#include <string>

#include "weights/safetensors.h"

namespace graft {

/// Metadata as a model file of Graft's has it, and the tensors of its network under canonical names
/// in canonical layout. Nothing: the file has no such record, or its weights are no longer the
/// network's (other names, other shapes, in ONNX other operators), so that what it says of itself
/// need not be so. Throws Error(input) for a damaged file or record.
std::optional<StoredSafetensors> own_export(const std::filesystem::path& file,
                                            const std::stop_token& until = {});

/// The metadata of a model file, from that of an export: keys to JSON texts. Nothing where it is no
/// export's.
std::optional<std::map<std::string, std::string>> own_metadata(
    const std::map<std::string, std::string>& exported);

}  // namespace graft
