// What `graft export` wrote, read back as the model that it was: in every format the file has a
// record of that model beside weights under the format's own names (docs/export.md).
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>

#include "weights/safetensors.h"

namespace graft {

class H5File;
class OnnxFile;
struct TorchFile;

struct OwnExport {
  /// Metadata as a model file of Graft's has it, and the tensors of its network under canonical
  /// names in canonical layout. Nothing: the file is not one, or not as it was written.
  std::optional<StoredSafetensors> model;
  std::string note{};  ///< of a file with a record that is passed over, why
};

/// The record is believed only of a file that is byte for byte what was written, by the hash in it
/// (file_seal.h): else layers, weights or the record itself may have been changed, and the file is
/// read as any other's. Throws Error(input) for a damaged file.
OwnExport own_export(const std::filesystem::path& path, const std::stop_token& until = {});
/// The same of a file that is open, which is what `path` names.
OwnExport own_export(const std::shared_ptr<H5File>& file, const std::filesystem::path& path);
OwnExport own_export(const std::shared_ptr<const OnnxFile>& file,
                     const std::filesystem::path& path);
OwnExport own_export(const TorchFile& file, const std::filesystem::path& path);
OwnExport own_export(const StoredSafetensors& file, const std::filesystem::path& path);

/// The metadata of a model file, from that of an export: keys to JSON texts. Nothing where it is no
/// export's.
std::optional<std::map<std::string, std::string>> own_metadata(
    const std::map<std::string, std::string>& exported);

}  // namespace graft
