// PyTorch's files (.pth, .pt): the tensors of a state_dict, by name.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "weights/stored_tensors.h"

namespace graft {

struct TorchFile {
  StoredTensors tensors;           ///< each keeps the file open
  std::vector<std::string> order;  ///< their names as the state_dict has them: layer by layer
  /// The key of the checkpoint under which they stood ("state_dict"); empty: they were all there
  /// is.
  std::string under;
  /// What `graft export` says of the model, JSON, or empty; and what is beside it in the archive
  /// (ZipFile::listing_without).
  std::string record{};
  std::string beside_record{};
};

/// Reads what torch.save(model.state_dict()) wrote, as a zip archive (PyTorch 1.6 and later) or as
/// the stream of pickles of before, or a checkpoint that has it under a key. Nothing is executed,
/// and no memory taken beyond 64 MB until a tensor is read. Throws Error(input), which for
/// torch.save(model) and TorchScript says how to write the weights alone.
TorchFile read_torch(const std::filesystem::path& path);
/// The same of bytes in memory that outlive the result; `name` is for messages.
TorchFile read_torch(std::span<const std::byte> bytes, const std::string& name);

}  // namespace graft
