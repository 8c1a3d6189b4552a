#include "weights/foreign_classifier.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <utility>

#include "base/fail.h"
#include "weights/flattened_order.h"

namespace graft {
namespace {

bool same(const Layer& ours, const ForeignLayer& theirs) {
  return ours.kind == theirs.kind && ours.outputs == theirs.outputs && ours.relu == theirs.relu;
}

/// How many layers from the first convolution on are a backbone's.
size_t common_layers(const Network& backbone, const std::vector<ForeignLayer>& layers) {
  size_t count = 0;
  while (count < layers.size() && count + 1 < backbone.layers.size() &&
         same(backbone.layers[count + 1], layers[count]))
    ++count;
  return count;
}

class Assembler {
 public:
  Assembler(const ForeignGraph& graph, const InputSize& asked) : graph_(graph), asked_(asked) {}

  ForeignClassifier run() {
    find_backbone();
    set_size();
    for (size_t i = 0; i < graph_.layers.size(); ++i) add(i);
    check();
    collect();
    out_.preprocessing = graph_.preprocessing;
    out_.resampling = graph_.resampling;
    out_.resampling_note = graph_.resampling_note;
    out_.labels = graph_.labels;
    out_.family = graph_.family;
    out_.notes.insert(out_.notes.begin(), graph_.notes.begin(), graph_.notes.end());
    check_labels();
    return std::move(out_);
  }

 private:
  [[noreturn]] void refuse(const std::string& why) const {
    fail(ErrorKind::input, "{}: {}", graph_.file, why);
  }
  [[noreturn]] void refuse(const ForeignLayer& layer, const std::string& why) const {
    fail(ErrorKind::input, "{}: layer {} ({}) {}", graph_.file, layer.name, to_string(layer.kind),
         why);
  }

  void find_backbone() {
    // A size that every backbone takes; layers do not depend on it.
    constexpr int kSide = 224;
    for (const std::string& name : backbone_names()) {
      const size_t count = common_layers(backbone(name, kSide, kSide), graph_.layers);
      if (count > common_) {
        common_ = count;
        name_ = name;
      }
    }
    const auto pool =
        std::find_if(graph_.layers.begin(), graph_.layers.end(),
                     [](const ForeignLayer& l) { return l.kind == LayerKind::maxpool; });
    if (static_cast<size_t>(pool - graph_.layers.begin()) >= common_)
      refuse(fmt::format("no VGG: its layers, {}, are not the first block of one of {}",
                         fmt::join(first_layers(), ", "), fmt::join(backbone_names(), ", ")));
  }

  [[nodiscard]] std::vector<std::string> first_layers() const {
    constexpr size_t kExamples = 4;
    std::vector<std::string> out;
    for (const ForeignLayer& layer : graph_.layers)
      if (out.size() < kExamples)
        out.push_back(fmt::format("{} ({}{}{})", layer.name, to_string(layer.kind),
                                  layer.outputs > 0 ? fmt::format(" {}", layer.outputs) : "",
                                  layer.relu ? ", ReLU" : ""));
    return out;
  }

  /// The input's size as the file says it, else as the layer behind a flatten tells it, else the
  /// usual one.
  void set_size() {
    using Size = ForeignClassifier::Size;
    const bool told = graph_.height > 0 && graph_.width > 0;
    int height = told ? graph_.height : default_input_size(name_);
    int width = told ? graph_.width : height;
    out_.size = told ? Size::told : Size::open;
    if (!told && asked_ != InputSize()) {
      height = asked_.height;
      width = asked_.width;
    } else if (const int side = told ? 0 : side_of_flatten(); side > 0) {
      height = width = side;
      out_.size = Size::least;
    }
    constexpr int kMostPixels = 16384;
    if (height > kMostPixels || width > kMostPixels)
      refuse(fmt::format("reads images of {}x{}; at most {} pixels a side", width, height,
                         kMostPixels));
    try {
      out_.network = backbone(name_, height, width);
    } catch (const Error& error) {
      refuse(error.what());
    }
    out_.network.layers.resize(common_ + 1);
  }

  [[nodiscard]] int side_of_flatten() const {
    int64_t channels = 0;
    int64_t scale = 1;
    bool flattened = false;
    for (const ForeignLayer& layer : graph_.layers) {
      if (layer.kind == LayerKind::conv) channels = layer.outputs;
      if (layer.kind == LayerKind::maxpool) scale *= 2;
      if (layer.kind == LayerKind::gap || layer.kind == LayerKind::gmp) return 0;
      flattened = flattened || layer.kind == LayerKind::flatten;
      const auto weight = layer.tensors.find("weight");
      if (!flattened || layer.kind != LayerKind::dense || weight == layer.tensors.end()) continue;
      const std::vector<int64_t>& shape = weight->second.shape;
      if (shape.size() != 2 || channels == 0) return 0;
      const auto side = static_cast<int64_t>(
          std::lround(std::sqrt(static_cast<double>(shape[1]) / static_cast<double>(channels))));
      constexpr int64_t kMostSide = 1 << 14;
      return side * side * channels == shape[1] && side * scale <= kMostSide
                 ? static_cast<int>(side * scale)
                 : 0;
    }
    return 0;
  }

  void add(size_t i) {
    const ForeignLayer& theirs = graph_.layers[i];
    if (i < common_) {
      Layer& ours = out_.network.layers[i + 1];
      if (ours.kind == LayerKind::batchnorm) ours.epsilon = theirs.epsilon;
      return;
    }
    Layer layer{.kind = theirs.kind,
                .name = head_name(i),
                .outputs = theirs.outputs,
                .rate = theirs.rate,
                .epsilon = theirs.epsilon,
                .relu = theirs.relu,
                .in_head = true};
    if (is_last(i)) layer.outputs = std::max(layer.outputs, 2);
    append(out_.network, std::move(layer));
  }

  [[nodiscard]] bool is_last(size_t i) const { return i + 1 == graph_.layers.size(); }

  /// As the head's language names layers (network/head.cpp).
  std::string head_name(size_t i) {
    const ForeignLayer& layer = graph_.layers[i];
    const auto numbered = [&](const char* stem) {
      return fmt::format("{}{}", stem, ++numbers_[stem]);
    };
    std::string name;
    switch (layer.kind) {
      case LayerKind::conv:
        name = numbered("head_conv");
        break;
      case LayerKind::maxpool:
        name = numbered("head_pool");
        break;
      case LayerKind::dense:
        name = is_last(i) ? "predictions" : numbered("fc");
        break;
      case LayerKind::dropout:
        name = numbered("dropout");
        break;
      case LayerKind::batchnorm: {
        const Layer& before = out_.network.layers.back();
        const bool follows = before.in_head && !before.relu && layer.relu &&
                             (before.kind == LayerKind::conv || before.kind == LayerKind::dense);
        name = follows ? before.name + "_bn" : numbered("batchnorm");
        break;
      }
      default:
        name = to_string(layer.kind);
        break;
    }
    while (find_layer(out_.network, name)) name = "head_" + name;
    return name;
  }

  void check() {
    if (graph_.layers.size() == common_ || graph_.layers.back().kind != LayerKind::dense ||
        graph_.layers.back().relu)
      refuse("it has no head that ends in a dense layer without ReLU: no classifier");
    if (graph_.output == ForeignOutput::sigmoid && graph_.layers.back().outputs != 1)
      refuse("a sigmoid of several outputs is no classifier's");
    if (graph_.output == ForeignOutput::logits && graph_.layers.back().outputs == 1)
      out_.notes.emplace_back(
          "its one output is taken for the logit of the second of two classes (a sigmoid makes its "
          "probability)");
    try {
      validate(out_.network);
    } catch (const Error& error) {
      refuse(error.what());
    }
  }

  /// The tensors of the network, each from the file's, with what the layout needs done to it.
  void collect() {
    const std::vector<Shape> shapes = output_shapes(out_.network);
    for (const TensorSpec& spec : tensor_specs(out_.network)) {
      const ForeignLayer& layer = graph_.layers[spec.layer - 1];
      const std::string role = spec.name.substr(out_.network.layers[spec.layer].name.size() + 1);
      const auto at = layer.tensors.find(role);
      const bool widened = is_last(spec.layer - 1) && layer.outputs == 1;
      std::vector<int64_t> shape = spec.shape;
      if (widened) shape[0] = 1;
      StoredTensor tensor;
      if (at == layer.tensors.end()) {
        if (spec.shape.size() > 1) refuse(layer, "has no weights in the file");
        tensor = filled(shape, role == "weight" || role == "running_var" ? 1.0F : 0.0F);
      } else {
        tensor = at->second;
        if (tensor.shape != shape) refuse_shape(layer, role, tensor.shape, shape, shapes);
      }
      if (graph_.channels_last)
        tensor = in_graft_order(std::move(tensor), out_.network, spec, shapes);
      if (widened) tensor = with_first_class(std::move(tensor), spec.shape);
      out_.tensors.push_back(std::move(tensor));
    }
  }

  static StoredTensor filled(const std::vector<int64_t>& shape, float value) {
    return {shape, ElementType::f32, [shape, value] {
              return Tensor(shape, std::vector<float>(static_cast<size_t>(shape.at(0)), value));
            }};
  }

  /// Softmax of (0, z) has sigmoid(z) as its second probability: zeros are put in front.
  static StoredTensor with_first_class(StoredTensor tensor, const std::vector<int64_t>& shape) {
    tensor.shape = shape;
    tensor.read = [read = std::move(tensor.read), shape] {
      const Tensor second = read();
      std::vector<float> values(second.values().size(), 0.0F);
      values.insert(values.end(), second.values().begin(), second.values().end());
      return Tensor(shape, std::move(values));
    };
    return tensor;
  }

  [[noreturn]] void refuse_shape(const ForeignLayer& layer, const std::string& role,
                                 const std::vector<int64_t>& found,
                                 const std::vector<int64_t>& needed,
                                 const std::vector<Shape>& shapes) const {
    const bool flattened =
        std::any_of(graph_.layers.begin(), graph_.layers.end(),
                    [](const ForeignLayer& one) { return one.kind == LayerKind::flatten; });
    if (flattened && asked_ != InputSize() && out_.size == ForeignClassifier::Size::open)
      fail(
          ErrorKind::usage,
          "`input-size`: layer {} of {} is not for images of {}x{}: its {} has the shape {}, where "
          "{} is needed",
          layer.name, graph_.file, asked_.height, asked_.width, role, shape_text(found),
          shape_text(needed));
    const bool flat = layer.kind == LayerKind::dense && role == "weight";
    refuse(layer,
           fmt::format("has a {} of shape {} where {} is needed{}{}", role, shape_text(found),
                       shape_text(needed),
                       flat ? fmt::format(" behind maps of {}", to_string(shapes[common_])) : "",
                       flat && out_.size == ForeignClassifier::Size::open
                           ? fmt::format(", of images of {}x{}; `input-size` says another size",
                                         out_.network.input_height, out_.network.input_width)
                           : ""));
  }

  void check_labels() {
    if (out_.labels.empty() || static_cast<int>(out_.labels.size()) == out_.classes()) return;
    out_.notes.push_back(fmt::format("its {} labels are left out: it has {} outputs",
                                     out_.labels.size(), out_.classes()));
    out_.labels.clear();
  }

  const ForeignGraph& graph_;
  InputSize asked_;
  ForeignClassifier out_;
  std::string name_;
  size_t common_ = 0;
  std::map<std::string, int> numbers_;
};

}  // namespace

TensorMap ForeignClassifier::read(const std::string& file) const {
  TensorMap out;
  const std::vector<TensorSpec> specs = tensor_specs(network);
  for (size_t i = 0; i < specs.size(); ++i) out.emplace(specs[i].name, tensors.at(i).read());
  check_finite(out, file);
  return out;
}

ForeignClassifier assemble(const ForeignGraph& graph, const InputSize& size) {
  return Assembler(graph, size).run();
}

}  // namespace graft
