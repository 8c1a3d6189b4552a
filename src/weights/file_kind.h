// What a file is, by its content: for messages where it is not what was asked for.
#pragma once

#include <filesystem>
#include <string>

namespace graft {

struct FileKind {
  enum Format {
    hdf5,
    safetensors,
    torch,  ///< .pth, .pt: a zip archive or a stream of pickles
    keras,  ///< .keras: a zip archive with model.weights.h5
    onnx,
    other,
    unknown,
  };
  Format format = unknown;
  std::string what;    ///< of `other`: "a web page", "a PDF document"
  std::string advice;  ///< of `other`: what to do with it instead
};

/// Throws Error(input) if there is no such file or it is no regular file, Error(io) if it cannot be
/// opened or read, each with the reason.
FileKind file_kind(const std::filesystem::path& path);

/// Throws Error(input) for a file that is recognisably no model of Graft's: Keras weights,
/// archives, web pages and the like. Leaves everything else to the reader.
void expect_model_file(const std::filesystem::path& path);

}  // namespace graft
