// The state of following an ONNX graph (onnx_graph.h): what each name stands for, and the layers so
// far. Its parts: onnx_graph.cpp for names, constants and forms, onnx_layers.cpp for layers.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "weights/onnx_constants.h"
#include "weights/onnx_graph.h"

namespace graft {

class OnnxWalk {
 public:
  explicit OnnxWalk(std::shared_ptr<const OnnxFile> file);
  OnnxLayers run();

 private:
  /// Maps or a vector behind the newest layer, in the order of dimensions that the graph has them.
  struct Maps {
    enum class Form : uint8_t { nchw, nhwc, flat };
    size_t version = 0;  // of an older one than the newest there is a second reader: a branch
    Form form = Form::nchw;
    bool padded = false;  // a row and a column of zeros on each side
  };
  /// Behind the softmax or sigmoid.
  struct Probabilities {};
  /// What nothing here can use. Whatever reads it says so.
  struct Unknown {};
  using Value = std::variant<Unknown, StoredTensor, OnnxIntegers, OnnxPixels, Maps, Probabilities>;
  /// Thrown where the list of layers ends.
  struct Stop {
    std::string why;
  };
  struct Window {
    std::vector<int64_t> kernel, strides, pads;
    bool dilated = false;
    bool same = false;  ///< auto_pad SAME_UPPER or SAME_LOWER: `pads` are not known
  };

  static constexpr size_t kRank = 4;  // of images and maps
  static constexpr size_t kChannels = 1, kRows = 2, kColumns = 3;

  [[noreturn]] static void stop(const OnnxNode& node, const std::string& why);
  [[noreturn]] static void not_ours(const OnnxNode& node);

  // Names and values.
  void constant(std::string_view name, const OnnxTensor& tensor);
  void inputs();
  const Value& value(const OnnxNode& node, size_t input);
  template <typename Kind>
  const Kind* get(const OnnxNode& node, size_t input) {
    return std::get_if<Kind>(&value(node, input));
  }
  [[nodiscard]] static bool has(const OnnxNode& node, size_t input) {
    return input < node.inputs.size() && !node.inputs[input].empty();
  }
  void put(const OnnxNode& node, Value made);
  void unknown(const OnnxNode& node);
  /// The output of a layer, or of what changes the form alone.
  void put_maps(const OnnxNode& node, Maps::Form form, bool padded = false);
  const StoredTensor& need_constant(const OnnxNode& node, size_t input, const char* what);
  /// One number for each of `count` channels.
  std::vector<float> for_each(const OnnxNode& node, const StoredTensor& tensor, int64_t count);
  /// As many zeros.
  std::vector<float> zeros(const OnnxNode& node, int64_t count);
  void account(const OnnxNode& node, int64_t count);
  /// Integers at an input, or under an attribute of older versions.
  std::optional<std::vector<int64_t>> list(const OnnxNode& node, size_t input,
                                           std::string_view attribute);

  // Nodes.
  void step(const OnnxNode& node);
  void constant_node(const OnnxNode& node);
  /// A node of constants alone. False: it is none that is computed here.
  bool fold(const OnnxNode& node);
  bool fold_integers(const OnnxNode& node, const OnnxIntegers& first);
  bool fold_tensor(const OnnxNode& node, const StoredTensor& tensor);
  void behind_probabilities(const OnnxNode& node);
  void cast(const OnnxNode& node);
  void shape(const OnnxNode& node);
  void transpose(const OnnxNode& node);
  bool pixels(const OnnxNode& node);
  bool reaches_output();
  void check_weights() const;

  // Layers.
  const Maps& newest(const OnnxNode& node);
  [[nodiscard]] std::optional<int64_t> features() const;
  ForeignLayer& add(const OnnxNode& node, LayerKind kind);
  void vector_from(const OnnxNode& node, LayerKind kind, Maps::Form form);
  void begin(const OnnxNode& node);
  static Window window(const OnnxNode& node, const std::vector<int64_t>& kernel);
  [[nodiscard]] bool covers(const std::vector<int64_t>& kernel) const;
  void conv(const OnnxNode& node);
  void dense(const OnnxNode& node, StoredTensor weight, std::optional<StoredTensor> bias,
             Maps::Form form);
  void batchnorm(const OnnxNode& node);
  void relu(const OnnxNode& node);
  void arithmetic(const OnnxNode& node);
  void arithmetic_on_pixels(const OnnxNode& node, const StoredTensor& by);
  void maxpool(const OnnxNode& node);
  void average_pool(const OnnxNode& node);
  void global_pool(const OnnxNode& node);
  bool is_over_places(const OnnxNode& node, const Maps& maps);
  void reduce(const OnnxNode& node);
  void flatten(const OnnxNode& node);
  void reshape(const OnnxNode& node);
  void squeeze(const OnnxNode& node);
  void to_vector(const OnnxNode& node);
  void gemm(const OnnxNode& node);
  void matmul(const OnnxNode& node);
  void dropout(const OnnxNode& node);
  void softmax(const OnnxNode& node);
  void sigmoid(const OnnxNode& node);
  void pad(const OnnxNode& node);

  std::shared_ptr<const OnnxFile> file_;
  OnnxLayers out_;
  std::map<std::string_view, Value> values_;
  std::map<size_t, std::vector<int64_t>> input_shapes_;  // by OnnxPixels::input
  uint64_t made_ = 0;                                    // bytes of vectors
  size_t folded_ = 0;
  uint64_t folded_bytes_ = 0;  // of weights that are transposed or reshaped when they are read
  size_t version_ = 0;
  // Of the newest layer's output. Nothing: not known, as the graph takes images of any size.
  std::optional<int64_t> batch_, height_, width_;
  int64_t channels_ = 0;
  bool vector_ = false;  // one number a channel, of whatever form
};

}  // namespace graft
