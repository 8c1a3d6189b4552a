// HDF5 files as they are written: groups, attributes, arrays. Nothing here reads HDF5, whose
// library is not made for files of strangers (decision 0013).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "weights/safetensors.h"
#include "weights/tensor.h"

namespace graft {

/// Builds a file in memory: where HDF5's library meets a disk that is full, it crashes as it ends.
/// Throws Error(memory) where there is not enough.
class H5Writer {
 public:
  H5Writer();
  ~H5Writer();
  H5Writer(const H5Writer&) = delete;
  H5Writer& operator=(const H5Writer&) = delete;

  /// With the groups above it, where they are not there.
  void group(const std::string& path);
  /// A text, and a list of texts, as attributes of a group ("/": the file).
  void attribute(const std::string& group, const std::string& name, const std::string& text);
  void attribute(const std::string& group, const std::string& name,
                 const std::vector<std::string>& texts);
  /// An array at a path, in groups that are made where they are not there.
  void array(const std::string& path, const Tensor& tensor, StoredType type);
  /// The file's bytes, until this object goes. Nothing can be added afterwards.
  std::span<const std::byte> finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace graft
