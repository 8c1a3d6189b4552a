// The layers that a graph may have, each from its node (onnx_walk.h).
#include <algorithm>
#include <cmath>
#include <utility>

#include "base/fail.h"
#include "weights/onnx_walk.h"

namespace graft {
namespace {

constexpr size_t kMostLayers = 1000;                // of a network (validate())
constexpr int64_t kMostOutputs = int64_t{1} << 20;  // of a layer, likewise

bool all_are(const std::vector<int64_t>& list, int64_t value) {
  return std::all_of(list.begin(), list.end(), [&](int64_t v) { return v == value; });
}

bool has_weights(LayerKind kind) {
  return kind == LayerKind::conv || kind == LayerKind::batchnorm || kind == LayerKind::dense;
}

/// Where a vector stands in a layer; an empty one where it has none.
StoredTensor& role(ForeignLayer& layer, const char* name) { return layer.tensors[name]; }

std::vector<float> numbers(const StoredTensor& vector) {
  const Tensor read = vector.read();
  return {read.values().begin(), read.values().end()};
}

std::string extents(const std::vector<int64_t>& list) {
  return fmt::format("{}", fmt::join(list, "x"));
}

}  // namespace

const OnnxWalk::Maps& OnnxWalk::newest(const OnnxNode& node) {
  const Maps* maps = get<Maps>(node, 0);
  if (maps == nullptr) not_ours(node);
  if (maps->version != version_)
    stop(node, "is a branch: it reads what another layer before it reads too");
  return *maps;
}

std::optional<int64_t> OnnxWalk::features() const {
  if (vector_) return channels_;
  if (!height_ || !width_) return std::nullopt;
  const std::optional<uint64_t> count = element_count({channels_, *height_, *width_});
  return count ? std::optional(static_cast<int64_t>(*count)) : std::nullopt;
}

ForeignLayer& OnnxWalk::add(const OnnxNode& node, LayerKind kind) {
  if (out_.graph.layers.size() == kMostLayers) stop(node, "is more than the 1000th layer");
  ForeignLayer layer;
  const std::string name =
      shown(node.name.empty() && !node.outputs.empty() ? node.outputs.front() : node.name);
  layer.name = name.substr(1, name.size() - 2);
  layer.kind = kind;
  return out_.graph.layers.emplace_back(std::move(layer));
}

OnnxWalk::Window OnnxWalk::window(const OnnxNode& node, const std::vector<int64_t>& kernel) {
  Window out;
  out.kernel = kernel.empty() ? node.integers("kernel_shape") : kernel;
  if (out.kernel.size() != 2 ||
      (node.find("kernel_shape") != nullptr && node.integers("kernel_shape") != out.kernel))
    stop(node, "has a window that is not of rows and columns");
  out.strides = node.integers("strides", {1, 1});
  out.dilated = !all_are(node.integers("dilations", {1, 1}), 1);
  out.pads = node.integers("pads", {0, 0, 0, 0});
  const std::string_view automatic = node.text("auto_pad", "NOTSET");
  if (automatic == "VALID") out.pads.assign(4, 0);
  out.same = automatic == "SAME_UPPER" || automatic == "SAME_LOWER";
  // What SAME comes to where a window moves by one: as many zeros as keep the size.
  if (out.same && all_are(out.strides, 1) && all_are(out.kernel, 3)) {
    out.pads.assign(4, 1);
    out.same = false;
  }
  if (out.pads.size() != 4 || out.strides.size() != 2)
    stop(node, "has a window that is not of rows and columns");
  return out;
}

bool OnnxWalk::covers(const std::vector<int64_t>& kernel) const {
  if (vector_) return all_are(kernel, 1);
  return height_ && width_ && kernel == std::vector<int64_t>{*height_, *width_};
}

/// The first convolution: what the graph did to the image before it.
void OnnxWalk::begin(const OnnxNode& node) {
  const OnnxPixels& image = *get<OnnxPixels>(node, 0);
  if (!out_.graph.layers.empty())
    fail(ErrorKind::input,
         "{}: more than one convolution reads its image ({} is the second), and a VGG has one",
         file_->name(), shown(node.name));
  if (image.axis != kChannels) stop(node, "reads an image whose colours are its last dimension");
  const std::optional<OnnxAffine> affine = affine_of(image);
  if (!affine) stop(node, "does not read red, green and blue, nor blue, green and red");
  out_.input = *affine;
  channels_ = static_cast<int64_t>(image.channels.size());
  const auto shape = input_shapes_.find(image.input);
  if (shape == input_shapes_.end()) return;
  const auto known = [&](size_t d) {
    return shape->second[d] > 0 ? std::optional(shape->second[d]) : std::nullopt;
  };
  constexpr int64_t kMostPixels = 16384;  // of a network's input (validate())
  if (shape->second[kRows] > kMostPixels || shape->second[kColumns] > kMostPixels)
    fail(ErrorKind::input, "{}: its input of {}x{} pixels is larger than {} a side", file_->name(),
         shape->second[kRows], shape->second[kColumns], kMostPixels);
  batch_ = known(0);
  height_ = known(kRows);
  width_ = known(kColumns);
  if (height_ && width_) {
    out_.graph.height = static_cast<int>(*height_);
    out_.graph.width = static_cast<int>(*width_);
  }
}

void OnnxWalk::conv(const OnnxNode& node) {
  const StoredTensor weight = need_constant(node, 1, "a kernel");
  std::optional<StoredTensor> bias;
  if (has(node, 2)) bias = need_constant(node, 2, "a bias");
  if (weight.shape.size() != kRank) stop(node, "is not one over rows and columns");
  const std::vector<int64_t> kernel(weight.shape.begin() + 2, weight.shape.end());
  const Window w = window(node, kernel);
  bool padded = false;
  if (const OnnxPixels* image = get<OnnxPixels>(node, 0)) {
    padded = image->padded;
    begin(node);
  } else {
    const Maps maps = newest(node);
    padded = maps.padded;
    if (maps.form != Maps::Form::nchw) stop(node, "reads maps whose channels are no dimension 1");
  }
  const int64_t group = node.integer("group", 1);
  const int64_t outputs = weight.shape[0];
  if (group == 1 && weight.shape[1] != channels_)
    stop(node, fmt::format("has kernels {} for {} channels", shape_text(weight.shape), channels_));
  if (outputs < 1 || outputs > kMostOutputs ||
      (bias && bias->shape != std::vector<int64_t>{outputs}))
    stop(node,
         fmt::format("has kernels {} and a bias that does not fit them", shape_text(weight.shape)));
  const bool plain = group == 1 && !w.dilated && !w.same;
  const bool around = all_are(w.pads, padded ? 0 : 1);
  if (!vector_ && plain && around && all_are(kernel, 3) && all_are(w.strides, 1)) {
    ForeignLayer& layer = add(node, LayerKind::conv);
    layer.outputs = static_cast<int>(outputs);
    layer.tensors.emplace("weight", weight);
    layer.tensors.emplace("bias", bias ? *bias : stored_vector(zeros(node, outputs)));
    channels_ = outputs;
    return put_maps(node, Maps::Form::nchw);
  }
  // Over the whole map it is a dense layer: timm's VGGs, and others that became convolutional.
  if (plain && !padded && all_are(w.pads, 0) && covers(kernel) && !out_.graph.layers.empty()) {
    if (!vector_) add(node, LayerKind::flatten);
    const int64_t inputs = weight.shape[1] * kernel[0] * kernel[1];
    return dense(node, reshaped(weight, {outputs, inputs}), bias, Maps::Form::nchw);
  }
  stop(node, fmt::format("has a window of {}, stride {}, padding {}, {} groups{}; Graft's are 3x3, "
                         "stride 1, padding 1",
                         extents(kernel), extents(w.strides), w.same ? "SAME" : extents(w.pads),
                         group, w.dilated ? ", dilated" : ""));
}

void OnnxWalk::dense(const OnnxNode& node, StoredTensor weight, std::optional<StoredTensor> bias,
                     Maps::Form form) {
  const int64_t outputs = weight.shape[0];
  const int64_t inputs = weight.shape[1];
  if (outputs < 1 || outputs > kMostOutputs || inputs < 1 || (features() && *features() != inputs))
    stop(node, fmt::format("has weights for {} inputs and {} outputs, and reads {}", inputs,
                           outputs, features().value_or(0)));
  if (bias && !varies_along(bias->shape, 2, 1, outputs))
    stop(node, "has a bias that does not fit its outputs");
  std::vector<float> values = bias ? for_each(node, *bias, outputs) : zeros(node, outputs);
  ForeignLayer& layer = add(node, LayerKind::dense);
  layer.outputs = static_cast<int>(outputs);
  layer.tensors.emplace("weight", std::move(weight));
  layer.tensors.emplace("bias", stored_vector(std::move(values)));
  channels_ = outputs;
  vector_ = true;
  put_maps(node, form);
}

void OnnxWalk::batchnorm(const OnnxNode& node) {
  const Maps maps = newest(node);
  const std::optional<int64_t> count = maps.form == Maps::Form::flat ? features() : channels_;
  if (maps.form == Maps::Form::nhwc || maps.padded || !count || node.integer("spatial", 1) != 1 ||
      node.integer("training_mode", 0) != 0)
    stop(node, "is not one over channels, in inference");
  const double epsilon = node.real("epsilon", 1e-5F);
  if (!(epsilon > 0 && epsilon < 1)) stop(node, fmt::format("has an epsilon of {}", epsilon));
  std::map<std::string, StoredTensor> tensors;
  size_t input = 1;
  for (const char* name : {"weight", "bias", "running_mean", "running_var"}) {
    const StoredTensor& tensor = need_constant(node, input++, name);
    if (tensor.shape != std::vector<int64_t>{*count})
      stop(node, fmt::format("has {} numbers for {} channels", shape_text(tensor.shape), *count));
    tensors.emplace(name, tensor);
  }
  ForeignLayer& layer = add(node, LayerKind::batchnorm);
  layer.epsilon = epsilon;
  layer.tensors = std::move(tensors);
  put_maps(node, maps.form);
}

void OnnxWalk::relu(const OnnxNode& node) {
  const Maps maps = newest(node);
  // It may as well stand before a pooling, a flatten or a dropout: each passes on what it reads.
  auto layer = out_.graph.layers.rbegin();
  while (layer != out_.graph.layers.rend() &&
         (layer->kind == LayerKind::maxpool || layer->kind == LayerKind::gmp ||
          layer->kind == LayerKind::flatten || layer->kind == LayerKind::dropout))
    ++layer;
  if (layer == out_.graph.layers.rend() || !has_weights(layer->kind))
    stop(node, "stands where no layer of Graft's has a ReLU");
  layer->relu = true;
  put_maps(node, maps.form, maps.padded);
}

void OnnxWalk::arithmetic_on_pixels(const OnnxNode& node, const StoredTensor& by) {
  OnnxPixels out = *get<OnnxPixels>(node, 0);
  const auto count = static_cast<int64_t>(out.channels.size());
  if (out.padded || !varies_along(by.shape, kRank, out.axis, count))
    stop(node, "treats pixels unlike each other");
  const std::vector<float> values = for_each(node, by, count);
  if (node.op == "Add") out.shift(values, 1);
  if (node.op == "Sub") out.shift(values, -1);
  if (node.op == "Mul") out.scale(values);
  if (node.op == "Div") out.divide(values);
  put(node, std::move(out));
}

/// A bias that stands by itself, and a BatchNorm that became a product and a sum.
void OnnxWalk::arithmetic(const OnnxNode& node) {
  const StoredTensor by = need_constant(node, 1, "a second operand");
  if (get<OnnxPixels>(node, 0) != nullptr) return arithmetic_on_pixels(node, by);
  const Maps maps = newest(node);
  const bool flat = maps.form == Maps::Form::flat;
  const std::optional<int64_t> count = flat ? features() : channels_;
  const size_t axis = maps.form == Maps::Form::nhwc ? kColumns : 1;
  if (!count || maps.padded || *count > kMostOutputs ||
      !varies_along(by.shape, flat ? 2 : kRank, axis, *count))
    stop(node, "is none of the layers that Graft has: not one number for each channel");
  std::vector<float> values = for_each(node, by, *count);
  const bool sum = node.op == "Add" || node.op == "Sub";
  for (float& v : values) {
    if (node.op == "Sub") v = 0 - v;
    if (node.op == "Div") v = 1 / v;
  }
  ForeignLayer* last = &out_.graph.layers.back();
  const bool linear = has_weights(last->kind) && !last->relu;
  if (!linear || (!sum && last->kind != LayerKind::batchnorm)) {
    last = &add(node, LayerKind::batchnorm);
    last->epsilon = 1e-5;
    const auto size = static_cast<size_t>(*count);
    role(*last, "weight") = stored_vector(std::vector<float>(size, 1.0F));
    role(*last, "bias") = stored_vector(zeros(node, *count));
    role(*last, "running_mean") = role(*last, "bias");
    account(node, 2 * *count);
    role(*last, "running_var") =
        stored_vector(std::vector<float>(size, static_cast<float>(1 - last->epsilon)));
  }
  for (const char* name : {"weight", "bias"}) {
    if (sum && name == std::string_view("weight")) continue;
    std::vector<float> changed = numbers(role(*last, name));
    if (changed.size() != values.size()) stop(node, "does not fit the layer before it");
    for (size_t i = 0; i < changed.size(); ++i)
      changed[i] = sum ? changed[i] + values[i] : changed[i] * values[i];
    role(*last, name) = stored_vector(std::move(changed));
  }
  put_maps(node, maps.form);
}

void OnnxWalk::maxpool(const OnnxNode& node) {
  const Maps maps = newest(node);
  const Window w = window(node, {});
  const bool even = height_ && width_ && *height_ % 2 == 0 && *width_ % 2 == 0;
  const bool no_pads = w.same ? even : all_are(w.pads, 0);
  if (maps.form != Maps::Form::nchw || maps.padded || vector_ || w.dilated || !no_pads)
    stop(node, "is padded, dilated or not over rows and columns");
  if (all_are(w.kernel, 2) && all_are(w.strides, 2) &&
      (node.integer("ceil_mode", 0) == 0 || even)) {
    add(node, LayerKind::maxpool);
    if (height_) height_ = *height_ / 2;
    if (width_) width_ = *width_ / 2;
    if ((height_ && *height_ < 1) || (width_ && *width_ < 1))
      stop(node, "leaves nothing of its maps");
    return put_maps(node, Maps::Form::nchw);
  }
  if (covers(w.kernel)) return vector_from(node, LayerKind::gmp, Maps::Form::nchw);
  stop(node, fmt::format("has a window of {}, stride {}; Graft's are 2x2, stride 2",
                         extents(w.kernel), extents(w.strides)));
}

/// A pooling over the whole map, which a vector comes out of.
void OnnxWalk::vector_from(const OnnxNode& node, LayerKind kind, Maps::Form form) {
  if (!vector_) add(node, kind);
  vector_ = true;
  put_maps(node, form);
}

void OnnxWalk::average_pool(const OnnxNode& node) {
  const Maps maps = newest(node);
  const Window w = window(node, {});
  if (maps.form != Maps::Form::nchw || maps.padded || w.same || !all_are(w.pads, 0) || w.dilated)
    stop(node, "is padded or not over rows and columns");
  // torchvision's AdaptiveAvgPool2d(7), where the maps have that size.
  if (all_are(w.kernel, 1) && all_are(w.strides, 1)) return put_maps(node, maps.form);
  if (!covers(w.kernel))
    stop(node,
         fmt::format("averages over {}; Graft averages over whole maps alone", extents(w.kernel)));
  vector_from(node, LayerKind::gap, Maps::Form::nchw);
}

void OnnxWalk::global_pool(const OnnxNode& node) {
  const Maps maps = newest(node);
  if (maps.form != Maps::Form::nchw || maps.padded) stop(node, "is not over rows and columns");
  vector_from(node, node.op == "GlobalMaxPool" ? LayerKind::gmp : LayerKind::gap, maps.form);
}

/// Whether the node's axes are the rows and columns of the maps.
bool OnnxWalk::is_over_places(const OnnxNode& node, const Maps& maps) {
  std::vector<int64_t> axes = list(node, 1, "axes").value_or(std::vector<int64_t>{});
  for (int64_t& axis : axes)
    if (axis < 0) axis += static_cast<int64_t>(kRank);
  std::sort(axes.begin(), axes.end());
  return (maps.form == Maps::Form::nchw && axes == std::vector<int64_t>{2, 3}) ||
         (maps.form == Maps::Form::nhwc && axes == std::vector<int64_t>{1, 2});
}

void OnnxWalk::reduce(const OnnxNode& node) {
  const Maps maps = newest(node);
  const bool of_maps = is_over_places(node, maps);
  if (!of_maps || maps.padded) stop(node, "is not over rows and columns");
  vector_from(node, node.op == "ReduceMax" ? LayerKind::gmp : LayerKind::gap,
              node.integer("keepdims", 1) != 0 ? maps.form : Maps::Form::flat);
}

/// Maps become a vector, in the order that the graph has them in.
void OnnxWalk::to_vector(const OnnxNode& node) {
  const Maps maps = newest(node);
  if (maps.padded) stop(node, "reads maps with zeros around them");
  if (maps.form != Maps::Form::flat && !vector_) {
    add(node, LayerKind::flatten);
    out_.graph.channels_last = maps.form == Maps::Form::nhwc;
  }
  put_maps(node, Maps::Form::flat);
}

void OnnxWalk::flatten(const OnnxNode& node) {
  const int64_t axis = node.integer("axis", 1);
  const bool flat = newest(node).form == Maps::Form::flat;
  if (axis != 1 && axis != (flat ? -1 : -3)) stop(node, "does not keep the images apart");
  to_vector(node);
}

void OnnxWalk::reshape(const OnnxNode& node) {
  const Maps maps = newest(node);
  OnnxIntegers wanted;
  if (const OnnxIntegers* found = get<OnnxIntegers>(node, 1)) {
    wanted = *found;
  } else {
    // Before version 5 it was an attribute.
    for (const int64_t extent : node.integers("shape")) wanted.emplace_back(extent);
  }
  if (wanted.empty()) stop(node, "makes a shape that is not known before it runs");
  // Of the batch: itself (0, or what a Shape gave), the rest (−1), or the one size that is
  // possible.
  const int64_t images = wanted[0].value_or(0);
  const bool of_batch = images == 0 || images == -1 || images == batch_.value_or(1);
  bool of_image = false;
  if (wanted.size() == 2) {
    const std::optional<int64_t> numbers = wanted[1];
    of_image = numbers && (*numbers == -1 ? images != -1 : !features() || *numbers == *features());
  } else if (wanted.size() == kRank && vector_) {  // (N, C, 1, 1)
    of_image = wanted[1] && (*wanted[1] == channels_ || *wanted[1] == -1) && wanted[2] == 1 &&
               wanted[3] == 1;
  }
  if (!of_batch || !of_image)
    stop(node, "makes another shape than one vector of each image's maps");
  if (wanted.size() == 2) return to_vector(node);
  if (maps.form == Maps::Form::nhwc) stop(node, "exchanges dimensions of maps");
  put_maps(node, Maps::Form::nchw);
}

void OnnxWalk::squeeze(const OnnxNode& node) {
  const Maps maps = newest(node);
  const bool fits = is_over_places(node, maps);
  if (!vector_ || !fits) stop(node, "takes away other dimensions than rows and columns of 1");
  to_vector(node);
}

void OnnxWalk::gemm(const OnnxNode& node) {
  const Maps maps = newest(node);
  const StoredTensor& weight = need_constant(node, 1, "weights");
  if (maps.form != Maps::Form::flat || weight.shape.size() != 2 || node.integer("transA", 0) != 0 ||
      node.real("alpha", 1) != 1 || node.real("beta", 1) != 1)
    stop(node, "is no dense layer: it scales, transposes or does not read a vector");
  std::optional<StoredTensor> bias;
  if (has(node, 2)) bias = need_constant(node, 2, "a bias");
  dense(node, node.integer("transB", 0) != 0 ? weight : permuted(weight, {1, 0}), bias,
        Maps::Form::flat);
}

void OnnxWalk::matmul(const OnnxNode& node) {
  const Maps maps = newest(node);
  const StoredTensor& weight = need_constant(node, 1, "weights");
  if (maps.form != Maps::Form::flat || weight.shape.size() != 2)
    stop(node, "is no dense layer: it does not multiply a vector by a matrix");
  dense(node, permuted(weight, {1, 0}), std::nullopt, Maps::Form::flat);
}

void OnnxWalk::dropout(const OnnxNode& node) {
  const Maps maps = newest(node);
  double rate = node.real("ratio", 0.5F);
  if (has(node, 1)) {
    const StoredTensor& ratio = need_constant(node, 1, "a ratio");
    rate = element_count(ratio.shape) == uint64_t{1} ? ratio.read().values()[0] : 0;
  }
  // It does nothing here, but where the classifier is trained on.
  if (rate > 0 && rate < 1) add(node, LayerKind::dropout).rate = rate;
  put_maps(node, maps.form, maps.padded);
}

void OnnxWalk::softmax(const OnnxNode& node) {
  const Maps maps = newest(node);
  const bool flat = maps.form == Maps::Form::flat;
  const int64_t axis = node.integer("axis", file_->opset() < 13 ? 1 : -1);
  if (!vector_ || (axis != 1 && !(flat && axis == -1))) stop(node, "is not over the classes");
  if (channels_ == 1) stop(node, "is over one output, of which it makes 1: no classifier");
  ++version_;  // nothing reads on
  put(node, Probabilities{});
}

void OnnxWalk::sigmoid(const OnnxNode& node) {
  static_cast<void>(newest(node));
  if (!vector_ || channels_ != 1)
    stop(node, fmt::format("is over {} outputs: labels beside each other, not classes of which one "
                           "is right",
                           channels_));
  out_.graph.output = ForeignOutput::sigmoid;
  ++version_;
  put(node, Probabilities{});
}

/// Zeros around maps, in front of a convolution that has none of its own.
void OnnxWalk::pad(const OnnxNode& node) {
  const std::vector<int64_t> pads = list(node, 1, "pads").value_or(std::vector<int64_t>{});
  bool zeros = node.text("mode", "constant") == "constant" && node.real("value", 0) == 0;
  if (has(node, 2)) {
    const StoredTensor& value = need_constant(node, 2, "a value");
    zeros = zeros && element_count(value.shape) == uint64_t{1} && value.read().values()[0] == 0;
  }
  const std::vector<int64_t> first{0, 0, 1, 1, 0, 0, 1, 1};
  const std::vector<int64_t> last{0, 1, 1, 0, 0, 1, 1, 0};
  const auto fits = [&](bool channels_first, bool padded) {
    if (!zeros || padded || has(node, 3) || pads != (channels_first ? first : last))
      stop(node, "is not a row and a column of zeros on each side");
  };
  if (const OnnxPixels* image = get<OnnxPixels>(node, 0)) {
    OnnxPixels out = *image;
    fits(out.axis == kChannels, out.padded);
    out.padded = true;
    return put(node, std::move(out));
  }
  const Maps maps = newest(node);
  fits(maps.form == Maps::Form::nchw, maps.padded || maps.form == Maps::Form::flat || vector_);
  put_maps(node, maps.form, true);
}

}  // namespace graft
