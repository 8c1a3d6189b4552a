// The safetensors format (docs/formats.md): read by memory map, written atomically.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "weights/tensor.h"

namespace graft {

struct SafetensorsFile {
  TensorMap tensors;  ///< float32 only, views of the mapped file
  std::map<std::string, std::string> metadata;
};

/// Reads and checks every rule of the format. Throws Error(input) naming the file.
SafetensorsFile read_safetensors(const std::filesystem::path& path);

/// Writes tensors in the order given (all float32), with metadata.
void write_safetensors(const std::filesystem::path& path,
                       const std::vector<std::pair<std::string, Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata);

}  // namespace graft
