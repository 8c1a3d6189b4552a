// Named tensors of float32 in memory.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "graft/image.h"
#include "graft/network.h"

namespace graft {

/// A dense float32 tensor, row-major. Copies share the data, which nobody changes after creation.
class Tensor {
 public:
  Tensor() = default;
  Tensor(std::vector<int64_t> shape, std::vector<float> values);
  /// A view of memory that `owner` keeps alive (a mapped file).
  Tensor(std::vector<int64_t> shape, std::span<const float> values,
         std::shared_ptr<const void> owner);

  [[nodiscard]] const std::vector<int64_t>& shape() const { return shape_; }
  [[nodiscard]] std::span<const float> values() const { return values_; }
  [[nodiscard]] const float* data() const { return values_.data(); }

 private:
  std::vector<int64_t> shape_;
  std::span<const float> values_;
  std::shared_ptr<const void> owner_;
};

/// Tensors under their canonical names (TensorSpec::name).
using TensorMap = std::map<std::string, Tensor>;

/// "(64, 3, 3, 3)".
std::string shape_text(const std::vector<int64_t>& shape);

/// Where weights come from; travels with them into every saved model.
struct Provenance {
  std::string source;   ///< e.g. "Keras VGG19 ImageNet (no top)", or the file's name
  std::string md5;      ///< of the file; empty for random weights
  std::string licence;  ///< licence family of the weights
};

/// Weights of a backbone, ready for use.
struct Weights {
  TensorMap tensors;
  Preprocessing preprocessing;
  Provenance provenance;
  std::string note;  ///< one line on what of the file was left out; mostly empty
};

/// The shapes of tensors under their canonical names.
using ShapeMap = std::map<std::string, std::vector<int64_t>>;

/// How found tensors differ from what layers [0, needed_end) of `full` need: a row of text for each
/// that is missing, extra or of another shape. Tensors of layers behind needed_end may be present
/// or not.
std::vector<std::string> tensor_differences(const Network& full, size_t needed_end,
                                            const ShapeMap& found);

/// Throws Error(input) with a table of the differences, if any. `hint` ends its first line.
void check_tensors(const Network& full, size_t needed_end, const ShapeMap& found,
                   const std::string& file, const std::string& hint);
void check_tensors(const Network& full, size_t needed_end, const TensorMap& found,
                   const std::string& file, const std::string& hint);

/// Throws Error(input) if any tensor holds NaN or infinity, or a variance below 0.
void check_finite(const TensorMap& tensors, const std::string& file);

/// The tensor, or Error(input) if it is missing or of another shape than the network needs.
const Tensor& need_tensor(const TensorMap& tensors, const TensorSpec& spec);

}  // namespace graft
