#include "export/onnx_graph.h"

#include <array>
#include <cstring>
#include <limits>

#include "base/fail.h"
#include "base/half.h"
#include "base/progress.h"
#include "export/export_metadata.h"
#include "export/names.h"
#include "graft/graft_c.h"
#include "report/model_card.h"
#include "weights/file_seal.h"
#include "weights/safetensors.h"

namespace graft {
namespace {

using onnx::AttributeProto;
using onnx::NodeProto;
using onnx::TensorProto;

// Of 2021: what every runtime of today reads. IR 7 is the file version that goes with opset 13.
constexpr int kOpset = 13;
constexpr int kIrVersion = 7;
// Protobuf's messages end at 2 GiB; nodes, names and metadata take some of it.
constexpr uint64_t kMostWeightBytes = (uint64_t{1} << 31U) - (uint64_t{64} << 20U);
constexpr const char* kBatch = "N";

/// Adds nodes, constants and weights, and names what lies between.
class Builder {
 public:
  Builder(const ModelFile& model, const ExportOptions& options)
      : model_(model),
        network_(model.metadata.network),
        shapes_(output_shapes(network_)),
        options_(options),
        proto_(std::make_unique<onnx::ModelProto>()),
        graph_(*proto_->mutable_graph()) {}

  std::unique_ptr<onnx::ModelProto> build() {
    for (const char* name : {"image", "input", "logits", "probabilities"}) names_.take(name);
    about();
    std::string x = options_.input == ExportInput::uint8 ? preprocessed() : network_input();
    const bool mirrored = model_.metadata.test_views > 1;
    if (mirrored) x = with_mirror_images(x);
    for (size_t i = 1; i < network_.layers.size(); ++i) x = layer(i, x);
    const auto classes = static_cast<int64_t>(model_.metadata.classes.size());
    if (mirrored) {
      // (2N, classes) → the mean over both halves.
      const std::string halves = node("Reshape", {x, integers({2, -1, classes}, "view_shape")});
      node("ReduceMean", {halves}, "logits", [](NodeProto& mean) {
        set_integers(mean, "axes", {0});
        set_integer(mean, "keepdims", 0);
      });
    } else {
      node("Identity", {x}, "logits");
    }
    node("Softmax", {"logits"}, "probabilities",
         [](NodeProto& softmax) { set_integer(softmax, "axis", 1); });
    for (const char* name : {"logits", "probabilities"})
      describe(*graph_.add_output(), name, TensorProto::FLOAT, {-1, classes});
    return std::move(proto_);
  }

 private:
  using Settle = std::function<void(NodeProto&)>;

  // What the file says of itself.

  void about() {
    proto_->set_ir_version(kIrVersion);
    onnx::OperatorSetIdProto* opset = proto_->add_opset_import();
    opset->set_domain("");
    opset->set_version(kOpset);
    proto_->set_producer_name("graft");
    proto_->set_producer_version(graft_version());
    const std::string card = model_card_text(model_.metadata);
    proto_->set_doc_string(card);
    graph_.set_name(network_.backbone.empty() ? "classifier" : network_.backbone);
    const Preprocessing& p = model_.metadata.preprocessing;
    for (const auto& [key, value] : export_metadata(model_.metadata)) property(key, value);
    property("labels", nlohmann::json(model_.metadata.classes).dump());
    property("input_size", nlohmann::json({network_.input_height, network_.input_width}).dump());
    property("resampling", std::string(to_string(p.resampling)));
    property("crop_ratio", fmt::format("{}", p.crop_ratio));
    property(std::string(kSealKey), std::string(kSealBlank));  // write_onnx() knows it
    property("model_card", card);
    if (options_.input != ExportInput::uint8) return;
    // ONNX's own words for images (docs/MetadataProps.md of its repository).
    property("Image.BitmapPixelFormat", "Rgb8");
    property("Image.ColorSpaceGamma", "SRGB");
    property("Image.NominalPixelRange", "NominalRange_0_255");
  }

  void property(const std::string& key, const std::string& value) {
    onnx::StringStringEntryProto* entry = proto_->add_metadata_props();
    entry->set_key(key);
    entry->set_value(value);
  }

  /// An input or output; -1 is the batch.
  static void describe(onnx::ValueInfoProto& value, const std::string& name, int type,
                       const std::vector<int64_t>& shape) {
    value.set_name(name);
    onnx::TypeProto_Tensor* tensor = value.mutable_type()->mutable_tensor_type();
    tensor->set_elem_type(type);
    for (const int64_t extent : shape) {
      onnx::TensorShapeProto_Dimension* dimension = tensor->mutable_shape()->add_dim();
      if (extent < 0)
        dimension->set_dim_param(kBatch);
      else
        dimension->set_dim_value(extent);
    }
  }

  // Nodes.

  static AttributeProto& attribute(NodeProto& node, const char* name,
                                   onnx::AttributeProto_AttributeType type) {
    AttributeProto& added = *node.add_attribute();
    added.set_name(name);
    added.set_type(type);
    return added;
  }
  static void set_integer(NodeProto& node, const char* name, int64_t value) {
    attribute(node, name, onnx::AttributeProto_AttributeType_INT).set_i(value);
  }
  static void set_float(NodeProto& node, const char* name, float value) {
    attribute(node, name, onnx::AttributeProto_AttributeType_FLOAT).set_f(value);
  }
  static void set_integers(NodeProto& node, const char* name, const std::vector<int64_t>& values) {
    AttributeProto& list = attribute(node, name, onnx::AttributeProto_AttributeType_INTS);
    for (const int64_t value : values) list.add_ints(value);
  }

  /// Returns the name of its output: `output`, or one of its own.
  std::string node(const char* op, const std::vector<std::string>& inputs,
                   const std::string& output = "", const Settle& settle = nullptr) {
    NodeProto& added = *graph_.add_node();
    added.set_op_type(op);
    for (const std::string& input : inputs) added.add_input(input);
    std::string name = output.empty() ? names_.take(std::string("x_") + op) : output;
    added.add_output(name);
    added.set_name(node_names_.take(name));
    if (settle) settle(added);
    return name;
  }

  // Constants and weights.

  TensorProto& initializer(const std::string& name, int type, const std::vector<int64_t>& shape) {
    TensorProto& tensor = *graph_.add_initializer();
    tensor.set_name(name);
    tensor.set_data_type(type);
    for (const int64_t extent : shape) tensor.add_dims(extent);
    return tensor;
  }

  std::string integers(const std::vector<int64_t>& values, const char* wanted) {
    std::string name = names_.take(wanted);
    initializer(name, TensorProto::INT64, {static_cast<int64_t>(values.size())})
        .set_raw_data(values.data(), values.size() * sizeof(int64_t));
    return name;
  }

  std::string floats(std::span<const float> values, const std::vector<int64_t>& shape,
                     const std::string& wanted) {
    std::string name = names_.take(wanted);
    initializer(name, TensorProto::FLOAT, shape).set_raw_data(values.data(), values.size_bytes());
    return name;
  }

  /// The layer's weight of that role, under its canonical name.
  std::string weight(const Layer& layer, const char* role, bool may_be_half = true) {
    const std::string name = layer.name + "." + role;
    const Tensor& tensor = model_.tensors.at(name);
    if (!options_.half || !may_be_half) return floats(tensor.values(), tensor.shape(), name);
    const std::string stored = names_.take(name);
    const std::vector<uint16_t> halves = as_halves(tensor, name);
    initializer(stored, TensorProto::FLOAT16, tensor.shape())
        .set_raw_data(halves.data(), halves.size() * sizeof(uint16_t));
    return node("Cast", {stored}, names_.take(name + "_wide"),
                [](NodeProto& cast) { set_integer(cast, "to", TensorProto::FLOAT); });
  }

  // The graph's beginning.

  std::string network_input() {
    describe(*graph_.add_input(), "input", TensorProto::FLOAT,
             {-1, 3, network_.input_height, network_.input_width});
    return "input";
  }

  /// (N, H, W, 3) pixels → what the network reads: x = pixel · scale − shift.
  std::string preprocessed() {
    describe(*graph_.add_input(), "image", TensorProto::UINT8,
             {-1, network_.input_height, network_.input_width, 3});
    std::string x = node("Cast", {"image"}, "",
                         [](NodeProto& cast) { set_integer(cast, "to", TensorProto::FLOAT); });
    x = node("Transpose", {x}, "", [](NodeProto& transpose) {
      set_integers(transpose, "perm", {0, 3, 1, 2});
    });
    const Preprocessing& p = model_.metadata.preprocessing;
    if (p.bgr)
      x = node("Gather", {x, integers({2, 1, 0}, "bgr")}, "",
               [](NodeProto& gather) { set_integer(gather, "axis", 1); });
    if (p.scale != std::array<float, 3>{1, 1, 1})
      x = node("Mul", {x, floats(p.scale, {1, 3, 1, 1}, "scale")});
    if (p.shift != std::array<float, 3>{0, 0, 0})
      x = node("Sub", {x, floats(p.shift, {1, 3, 1, 1}, "shift")});
    return x;
  }

  /// The batch with the mirror image of each image behind it.
  std::string with_mirror_images(const std::string& x) {
    constexpr int64_t kBeforeTheFirst = std::numeric_limits<int64_t>::min();
    const std::string mirrored =
        node("Slice", {x, integers({-1}, "mirror_from"), integers({kBeforeTheFirst}, "mirror_to"),
                       integers({3}, "mirror_axis"), integers({-1}, "mirror_step")});
    return node("Concat", {x, mirrored}, "",
                [](NodeProto& concat) { set_integer(concat, "axis", 0); });
  }

  // Layers.

  static void set_window(NodeProto& node, const Window& w) {
    set_integers(node, "kernel_shape", {w.kernel, w.kernel});
    set_integers(node, "strides", {w.stride, w.stride});
    set_integers(node, "pads", {w.padding, w.padding, w.padding, w.padding});
  }

  std::string flat(const std::string& x) {
    return node("Flatten", {x}, "", [](NodeProto& flatten) { set_integer(flatten, "axis", 1); });
  }

  /// Means, maxima and population standard deviations of each map.
  std::string statistics(const std::string& x) {
    const auto over_pixels = [&](const char* op, const std::string& of, int64_t keep) {
      return node(op, {of}, "", [&](NodeProto& reduce) {
        set_integers(reduce, "axes", {2, 3});
        set_integer(reduce, "keepdims", keep);
      });
    };
    const std::string mean = over_pixels("ReduceMean", x, 1);
    const std::string off = node("Sub", {x, mean});
    const std::string variance = over_pixels("ReduceMean", node("Mul", {off, off}), 0);
    return node("Concat", {flat(mean), over_pixels("ReduceMax", x, 0), node("Sqrt", {variance})},
                "", [](NodeProto& concat) { set_integer(concat, "axis", 1); });
  }

  std::string layer(size_t index, const std::string& x) {
    const Layer& layer = network_.layers[index];
    const std::string y = without_relu(layer, x);
    return layer.relu ? node("Relu", {y}) : y;
  }

  std::string without_relu(const Layer& layer, const std::string& x) {
    const std::string out = layer.kind == LayerKind::dropout ? "" : names_.take(layer.name);
    switch (layer.kind) {
      case LayerKind::conv:
        return node("Conv", {x, weight(layer, "weight"), weight(layer, "bias")}, out,
                    [&](NodeProto& conv) {
                      set_window(conv, layer.window);
                      set_integer(conv, "group", layer.window.groups);
                    });
      case LayerKind::batchnorm:
        return node("BatchNormalization",
                    {x, weight(layer, "weight", false), weight(layer, "bias", false),
                     weight(layer, "running_mean", false), weight(layer, "running_var", false)},
                    out, [&](NodeProto& norm) {
                      set_float(norm, "epsilon", static_cast<float>(layer.epsilon));
                    });
      case LayerKind::maxpool:
        return node("MaxPool", {x}, out, [&](NodeProto& pool) { set_window(pool, layer.window); });
      case LayerKind::gap:
        return node("Flatten", {node("GlobalAveragePool", {x})}, out);
      case LayerKind::gmp:
        return node("Flatten", {node("GlobalMaxPool", {x})}, out);
      case LayerKind::stats:
        return node("Identity", {statistics(x)}, out);
      case LayerKind::flatten:
        return node("Flatten", {x}, out);
      case LayerKind::dense:
        return node("Gemm", {x, weight(layer, "weight"), weight(layer, "bias")}, out,
                    [](NodeProto& gemm) { set_integer(gemm, "transB", 1); });
      case LayerKind::input:
      case LayerKind::dropout:
        break;
    }
    return x;
  }

  const ModelFile& model_;
  const Network& network_;
  std::vector<Shape> shapes_;
  const ExportOptions& options_;
  std::unique_ptr<onnx::ModelProto> proto_;
  onnx::GraphProto& graph_;
  UniqueNames names_;  // of values and weights
  UniqueNames node_names_;
};

}  // namespace

std::unique_ptr<onnx::ModelProto> make_onnx(const ModelFile& model, const ExportOptions& options) {
  uint64_t bytes = 0;
  for (const TensorSpec& spec : tensor_specs(model.metadata.network))
    bytes += static_cast<uint64_t>(spec.elements()) * (options.half ? 2 : 4);
  if (bytes > kMostWeightBytes)
    fail(ErrorKind::input, "its weights take {}, and an ONNX file holds 2 GB{}",
         format_bytes(static_cast<double>(bytes)),
         options.half ? "; train a smaller head ('gap' before the dense layers)"
                      : "; store them as fp16, or train a smaller head");
  return Builder(model, options).build();
}

}  // namespace graft
