// ONNX models: the nodes of the graph and its tensors, as the file has them. Nothing is computed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "weights/stored_tensors.h"

namespace graft {

class OnnxExternal;

/// A tensor of the file; its values lie there, or in a file beside it.
struct OnnxTensor {
  std::string_view name;
  std::vector<int64_t> shape;
  int type = 0;                                   ///< TensorProto.DataType
  ElementType element = ElementType::other;       ///< of a floating-point type
  uint64_t elements = 0;                          ///< as many as are stored
  std::string_view message;                       ///< the TensorProto
  std::optional<std::span<const std::byte>> raw;  ///< its values, where they are stored as bytes
};

struct OnnxAttribute {
  std::string_view name;
  std::optional<int64_t> integer;
  std::optional<float> real;
  std::optional<std::string_view> text;
  std::vector<int64_t> integers;
  std::optional<OnnxTensor> tensor;
};

struct OnnxNode {
  std::string_view op;
  std::string_view name;
  std::string_view domain;
  std::vector<std::string_view> inputs;   ///< empty: left out
  std::vector<std::string_view> outputs;  ///< likewise
  std::vector<OnnxAttribute> attributes;

  [[nodiscard]] const OnnxAttribute* find(std::string_view attribute) const;
  [[nodiscard]] int64_t integer(std::string_view attribute, int64_t otherwise) const;
  [[nodiscard]] float real(std::string_view attribute, float otherwise) const;
  [[nodiscard]] std::string_view text(std::string_view attribute, std::string_view otherwise) const;
  [[nodiscard]] std::vector<int64_t> integers(std::string_view attribute,
                                              const std::vector<int64_t>& otherwise = {}) const;
};

struct OnnxInput {
  std::string_view name;
  int type = 0;  ///< TensorProto.DataType
  /// −1: not said. Nothing: the file does not say even how many.
  std::optional<std::vector<int64_t>> shape;
};

/// A model file, open. Thread-safe once made; what it gives out does not outlive it, but for
/// StoredTensors, which keep it open.
class OnnxFile {
 public:
  /// Reads everything but values. Tensors that lie in other files ("external data") are found where
  /// these are below the model's own folder, by a relative path without ".." and without symbolic
  /// links. Memory stays below 32 MB, whatever the file claims. Throws Error(input) where the file
  /// is no ONNX model, is damaged, or has a tensor of which less is stored than its shape says.
  static std::shared_ptr<const OnnxFile> open(const std::filesystem::path& path);
  /// The same of bytes in memory that outlive the object, without external data; `name` is for
  /// messages.
  static std::shared_ptr<const OnnxFile> read(std::string_view bytes, const std::string& name);

  ~OnnxFile();
  OnnxFile(const OnnxFile&) = delete;
  OnnxFile& operator=(const OnnxFile&) = delete;

  [[nodiscard]] const std::string& name() const { return name_; }  ///< printable, for messages
  [[nodiscard]] uint64_t bytes() const { return bytes_; }          ///< of all its files
  [[nodiscard]] int64_t opset() const { return opset_; }
  [[nodiscard]] std::string_view producer() const { return producer_; }
  [[nodiscard]] const std::map<std::string_view, std::string_view>& metadata() const {
    return metadata_;
  }
  [[nodiscard]] const std::vector<OnnxNode>& nodes() const { return nodes_; }
  [[nodiscard]] const std::vector<OnnxInput>& inputs() const { return inputs_; }
  [[nodiscard]] const std::vector<std::string_view>& outputs() const { return outputs_; }
  [[nodiscard]] const std::map<std::string_view, OnnxTensor>& initializers() const {
    return initializers_;
  }

  /// A tensor to be read as float32; its `read` keeps the file open.
  [[nodiscard]] StoredTensor stored(const OnnxTensor& tensor) const;
  /// The values of a short list of int32 or int64; nothing: it is none.
  [[nodiscard]] std::optional<std::vector<int64_t>> integers(const OnnxTensor& tensor) const;

 private:
  class Parser;
  OnnxFile() = default;
  [[nodiscard]] Tensor values(const OnnxTensor& tensor) const;

  std::string name_;
  uint64_t bytes_ = 0;
  std::shared_ptr<const void> owner_;
  std::unique_ptr<OnnxExternal> external_;
  std::weak_ptr<const OnnxFile> self_;
  int64_t opset_ = 0;
  std::string_view producer_;
  std::map<std::string_view, std::string_view> metadata_;
  std::vector<OnnxNode> nodes_;
  std::vector<OnnxInput> inputs_;
  std::vector<std::string_view> outputs_;
  std::map<std::string_view, OnnxTensor> initializers_;
};

/// A name from a file, for messages: printable, and not long.
std::string shown(std::string_view name);

}  // namespace graft
