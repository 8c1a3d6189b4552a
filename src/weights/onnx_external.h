// The files beside an ONNX model that hold its tensors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "base/file.h"

namespace graft {

/// Opens them as they are asked for, and keeps them open. Not thread-safe while it does.
class OnnxExternal {
 public:
  /// `folder`: the model's; empty: there are no other files.
  explicit OnnxExternal(fs::path folder) : folder_(std::move(folder)) {}

  /// The bytes of a tensor: `entries` are its location, offset and length, `size` is how many it
  /// has. Throws Error(input) that names model and tensor where they are not all in a file below
  /// the folder (MappedFile::below).
  std::span<const std::byte> find(const std::map<std::string_view, std::string_view>& entries,
                                  uint64_t size, const std::string& model,
                                  const std::string& tensor);

  /// Of all files so far.
  [[nodiscard]] uint64_t bytes() const;

 private:
  std::span<const std::byte> open(const std::string& location, const std::string& model);

  fs::path folder_;
  std::map<std::string, MappedFile> files_;
};

}  // namespace graft
