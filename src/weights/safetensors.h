// The safetensors format (docs/formats.md): read by memory map, written atomically.
#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/file.h"
#include "weights/stored_tensors.h"
#include "weights/tensor.h"

namespace graft {

struct SafetensorsFile {
  TensorMap tensors;  ///< float32: views of the file, or values that were float16 in it
  std::map<std::string, std::string> metadata;
};

/// A file that need not be Graft's: also of bfloat16 and float64, and with tensors of whole
/// numbers.
struct StoredSafetensors {
  StoredTensors tensors;  ///< each keeps the file open
  std::map<std::string, std::string> metadata;
  bool sealed = false;  ///< the file has a hash of itself, which is right
};

/// Reads and checks every rule of the format, and where the file holds a hash of itself also that.
/// Throws Error(input) naming the file.
SafetensorsFile read_safetensors(const std::filesystem::path& path);
/// The same of bytes in memory that outlive the result; `name` is for messages.
SafetensorsFile read_safetensors(std::span<const std::byte> bytes, const std::string& name);

/// The same of another program's file: nothing is read of its tensors until they are asked for.
StoredSafetensors open_safetensors(const std::filesystem::path& path);
StoredSafetensors open_safetensors(std::span<const std::byte> bytes, const std::string& name);

enum class StoredType { f32, f16 };

/// Writes tensors in the order given, with metadata and a hash of the file. As float16 values are
/// rounded to nearest; throws Error(input) where one is beyond its range.
void write_safetensors(const std::filesystem::path& path,
                       const std::vector<std::pair<std::string, Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata,
                       StoredType type = StoredType::f32);
/// The same without giving the file its name.
void write_safetensors(AtomicFile& file, const std::vector<std::pair<std::string, Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata,
                       StoredType type = StoredType::f32);

/// The values as float16. Throws Error(input) as write_safetensors() does; `name` is the tensor's.
std::vector<uint16_t> as_halves(const Tensor& tensor, const std::string& name);

}  // namespace graft
