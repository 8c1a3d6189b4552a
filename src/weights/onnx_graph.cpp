#include "weights/onnx_graph.h"

#include <algorithm>
#include <utility>

#include "base/fail.h"
#include "weights/onnx_walk.h"

namespace graft {
namespace {

constexpr int kUint8 = 2;  // TensorProto.DataType
// What broadcasting makes of small constants: biases and BatchNorms of a VGG take 1 MB.
constexpr uint64_t kMostMade = uint64_t{32} << 20U;

bool is_standard(const OnnxNode& node) { return node.domain.empty() || node.domain == "ai.onnx"; }

/// Without the quotes.
std::string bare(std::string_view name) {
  const std::string quoted = shown(name);
  return quoted.substr(1, quoted.size() - 2);
}

std::string called(const OnnxNode& node) {
  const std::string_view name =
      !node.name.empty() || node.outputs.empty() ? node.name : node.outputs.front();
  return fmt::format("{}{} (node {})", is_standard(node) ? "" : bare(node.domain) + ".",
                     bare(node.op), shown(name));
}

bool to_floating(const OnnxNode& node) {
  constexpr int64_t kFloat = 1, kHalf = 10, kDouble = 11, kBfloat = 16;
  const int64_t to = node.integer("to", 0);
  return to == kFloat || to == kHalf || to == kDouble || to == kBfloat;
}

bool is_arithmetic(std::string_view op) {
  return op == "Add" || op == "Sub" || op == "Mul" || op == "Div";
}

}  // namespace

OnnxLayers follow(const std::shared_ptr<const OnnxFile>& file) { return OnnxWalk(file).run(); }

OnnxWalk::OnnxWalk(std::shared_ptr<const OnnxFile> file) : file_(std::move(file)) {
  out_.graph.file = file_->name();
  out_.graph.family = "onnx";
}

OnnxLayers OnnxWalk::run() {
  for (const auto& [name, tensor] : file_->initializers()) constant(name, tensor);
  inputs();
  for (const OnnxNode& node : file_->nodes()) {
    try {
      step(node);
    } catch (const Stop& stop) {
      out_.stopped = stop.why;
      break;
    }
  }
  if (out_.graph.layers.empty())
    fail(ErrorKind::input, "{}: {}", file_->name(),
         out_.stopped.empty() ? "an ONNX model without a convolution over an image" : out_.stopped);
  if (out_.stopped.empty() && !reaches_output())
    out_.stopped = "no output of the graph is behind its layers";
  check_weights();
  return std::move(out_);
}

void OnnxWalk::stop(const OnnxNode& node, const std::string& why) {
  throw Stop{called(node) + " " + why};
}

void OnnxWalk::not_ours(const OnnxNode& node) {
  stop(node, "is none of the layers that Graft has");
}

void OnnxWalk::constant(std::string_view name, const OnnxTensor& tensor) {
  if (const auto list = file_->integers(tensor))
    values_[name] = OnnxIntegers(list->begin(), list->end());
  else if (tensor.element != ElementType::other)
    values_[name] = file_->stored(tensor);
  else
    values_[name] = Unknown{};
}

void OnnxWalk::inputs() {
  constexpr int64_t kColours = 3;
  size_t index = 0;
  for (const OnnxInput& input : file_->inputs()) {
    if (values_.contains(input.name)) continue;  // an initializer's default
    ++index;
    if (input.shape && input.shape->size() != kRank) {
      values_[input.name] = Unknown{};
      continue;
    }
    OnnxPixels pixels;
    pixels.input = index;
    pixels.is_bytes = input.type == kUint8;
    if (input.shape) {
      const std::vector<int64_t>& shape = *input.shape;
      if (shape[kChannels] != kColours && shape[kColumns] == kColours) pixels.axis = kColumns;
      input_shapes_[index] = shape;
      // As (N, C, H, W), whatever order it comes in.
      if (pixels.axis == kColumns)
        std::rotate(input_shapes_[index].begin() + 1, input_shapes_[index].end() - 1,
                    input_shapes_[index].end());
    }
    values_[input.name] = std::move(pixels);
  }
}

const OnnxWalk::Value& OnnxWalk::value(const OnnxNode& node, size_t input) {
  static const Value kNone = Unknown{};
  if (!has(node, input)) return kNone;
  const auto found = values_.find(node.inputs[input]);
  if (found == values_.end())
    stop(node, "reads " + shown(node.inputs[input]) +
                   ", which nothing before it makes: a tensor is missing, or the graph runs in a "
                   "circle");
  return found->second;
}

void OnnxWalk::put(const OnnxNode& node, Value made) {
  if (!node.outputs.empty() && !node.outputs[0].empty()) values_[node.outputs[0]] = std::move(made);
}

void OnnxWalk::put_maps(const OnnxNode& node, Maps::Form form, bool padded) {
  put(node, Maps{++version_, form, padded});
}

void OnnxWalk::unknown(const OnnxNode& node) {
  for (const std::string_view output : node.outputs) values_[output] = Unknown{};
}

const StoredTensor& OnnxWalk::need_constant(const OnnxNode& node, size_t input, const char* what) {
  const StoredTensor* tensor = get<StoredTensor>(node, input);
  if (tensor == nullptr)
    stop(node, fmt::format(
                   "has {} that {}", what,
                   has(node, input) ? "is no constant of floating-point numbers" : "is not there"));
  return *tensor;
}

void OnnxWalk::account(const OnnxNode& node, int64_t count) {
  made_ += static_cast<uint64_t>(count) * sizeof(float);
  if (made_ > kMostMade) stop(node, "belongs to a graph with more arithmetic than a VGG has");
}

std::vector<float> OnnxWalk::zeros(const OnnxNode& node, int64_t count) {
  account(node, count);
  return std::vector<float>(static_cast<size_t>(count), 0.0F);
}

std::vector<float> OnnxWalk::for_each(const OnnxNode& node, const StoredTensor& tensor,
                                      int64_t count) {
  account(node, count);
  const Tensor read = tensor.read();
  std::vector<float> out(read.values().begin(), read.values().end());
  if (out.size() == 1) out.assign(static_cast<size_t>(count), out.front());
  return out;
}

std::optional<std::vector<int64_t>> OnnxWalk::list(const OnnxNode& node, size_t input,
                                                   std::string_view attribute) {
  if (!has(node, input)) {
    const OnnxAttribute* a = attribute.empty() ? nullptr : node.find(attribute);
    if (a == nullptr) return std::nullopt;
    return a->integer ? std::vector<int64_t>{*a->integer} : a->integers;
  }
  const OnnxIntegers* known = get<OnnxIntegers>(node, input);
  if (known == nullptr) stop(node, "has extents that are no constants");
  std::vector<int64_t> out;
  for (const std::optional<int64_t>& number : *known) {
    if (!number) stop(node, "has extents that depend on the images");
    out.push_back(*number);
  }
  return out;
}

void OnnxWalk::step(const OnnxNode& node) {
  if (is_standard(node) && node.op == "Constant") return constant_node(node);
  size_t of_interest = node.inputs.size();  // the first input that is an image or a layer's
  for (size_t i = node.inputs.size(); i-- > 0;) {
    const Value& v = value(node, i);
    if (std::holds_alternative<Maps>(v) || std::holds_alternative<OnnxPixels>(v) ||
        std::holds_alternative<Probabilities>(v))
      of_interest = i;
  }
  if (of_interest == node.inputs.size()) {
    if (!is_standard(node) || !fold(node)) unknown(node);
    return;
  }
  if (!is_standard(node)) not_ours(node);
  if (node.op == "Shape") return shape(node);
  if ((node.op == "Add" || node.op == "Mul") && of_interest == 1 && node.inputs.size() == 2) {
    OnnxNode swapped = node;
    std::swap(swapped.inputs[0], swapped.inputs[1]);
    return arithmetic(swapped);
  }
  if (of_interest != 0) stop(node, "reads a layer where it should read weights");
  if (get<Probabilities>(node, 0) != nullptr) return behind_probabilities(node);
  if (node.op == "Identity") return put(node, value(node, 0));
  if (node.op == "Cast") return cast(node);
  if (node.op == "Transpose") return transpose(node);
  if (is_arithmetic(node.op)) return arithmetic(node);
  if (get<OnnxPixels>(node, 0) != nullptr && node.op != "Conv" && node.op != "Pad") {
    if (!pixels(node))
      stop(node,
           "stands before the first convolution, where only arithmetic on colours is read; export "
           "the network without it");
    return;
  }
  using Handler = void (OnnxWalk::*)(const OnnxNode&);
  static const std::map<std::string_view, Handler> kLayers = {
      {"Conv", &OnnxWalk::conv},
      {"BatchNormalization", &OnnxWalk::batchnorm},
      {"Relu", &OnnxWalk::relu},
      {"MaxPool", &OnnxWalk::maxpool},
      {"AveragePool", &OnnxWalk::average_pool},
      {"GlobalAveragePool", &OnnxWalk::global_pool},
      {"GlobalMaxPool", &OnnxWalk::global_pool},
      {"ReduceMean", &OnnxWalk::reduce},
      {"ReduceMax", &OnnxWalk::reduce},
      {"Flatten", &OnnxWalk::flatten},
      {"Reshape", &OnnxWalk::reshape},
      {"Squeeze", &OnnxWalk::squeeze},
      {"Gemm", &OnnxWalk::gemm},
      {"MatMul", &OnnxWalk::matmul},
      {"Dropout", &OnnxWalk::dropout},
      {"Softmax", &OnnxWalk::softmax},
      {"LogSoftmax", &OnnxWalk::softmax},
      {"Sigmoid", &OnnxWalk::sigmoid},
      {"Pad", &OnnxWalk::pad},
  };
  const auto handler = kLayers.find(node.op);
  if (handler == kLayers.end()) not_ours(node);
  (this->*handler->second)(node);
}

void OnnxWalk::constant_node(const OnnxNode& node) {
  const OnnxAttribute* tensor = node.find("value");
  const OnnxAttribute* integer = node.find("value_int");
  const OnnxAttribute* integers = node.find("value_ints");
  const OnnxAttribute* real = node.find("value_float");
  if (node.outputs.empty()) return;
  if (tensor != nullptr && tensor->tensor)
    constant(node.outputs[0], *tensor->tensor);
  else if (integer != nullptr && integer->integer)
    put(node, OnnxIntegers{*integer->integer});
  else if (integers != nullptr)
    put(node, OnnxIntegers(integers->integers.begin(), integers->integers.end()));
  else if (real != nullptr && real->real)
    put(node, reshaped(stored_vector({*real->real}), {}));
  else
    unknown(node);
}

bool OnnxWalk::fold(const OnnxNode& node) {
  // Each makes a reader that calls another one, or a copy of a list.
  constexpr size_t kMostFolded = 1000;
  if (node.inputs.empty() || ++folded_ > kMostFolded) return false;
  if (const StoredTensor* tensor = get<StoredTensor>(node, 0))
    return fold_tensor(node, StoredTensor(*tensor));
  if (const OnnxIntegers* first = get<OnnxIntegers>(node, 0))
    return fold_integers(node, OnnxIntegers(*first));
  return false;
}

bool OnnxWalk::fold_integers(const OnnxNode& node, const OnnxIntegers& first) {
  constexpr size_t kMostNumbers = 64;
  OnnxIntegers out;
  if (node.op == "Identity" || node.op == "Unsqueeze" || node.op == "Squeeze" ||
      node.op == "Cast") {
    out = first;
  } else if (node.op == "Concat") {
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      const OnnxIntegers* part = get<OnnxIntegers>(node, i);
      if (part == nullptr || out.size() + part->size() > kMostNumbers) return false;
      out.insert(out.end(), part->begin(), part->end());
    }
  } else if (node.op == "Gather") {
    const OnnxIntegers* indices = get<OnnxIntegers>(node, 1);
    if (indices == nullptr) return false;
    const auto count = static_cast<int64_t>(first.size());
    for (const std::optional<int64_t>& index : *indices) {
      if (!index || *index < -count || *index >= count) return false;
      out.push_back(first[static_cast<size_t>(*index < 0 ? *index + count : *index)]);
    }
  } else if (node.op == "Slice") {
    const auto start = list(node, 1, "starts");
    const auto end = list(node, 2, "ends");
    const auto steps = list(node, 4, "");
    if (!start || !end || start->size() != 1 || end->size() != 1) return false;
    const int64_t by = steps && steps->size() == 1 ? steps->front() : 1;
    for (const int64_t i : slice_indices(first.size(), start->front(), end->front(), by))
      out.push_back(first[static_cast<size_t>(i)]);
  } else {
    return false;
  }
  put(node, std::move(out));
  return true;
}

bool OnnxWalk::fold_tensor(const OnnxNode& node, const StoredTensor& tensor) {
  if (node.op == "Identity" || (node.op == "Cast" && to_floating(node))) {
    put(node, tensor);
    return true;
  }
  // One transposition after the other of a large tensor would take long.
  folded_bytes_ += *element_count(tensor.shape) * sizeof(float);
  if (folded_bytes_ > 4 * file_->bytes() + kMostMade) return false;
  const size_t dimensions = tensor.shape.size();
  std::vector<int64_t> shape;
  if (node.op == "Transpose") {
    std::vector<int64_t> reversed;
    for (size_t d = dimensions; d-- > 0;) reversed.push_back(static_cast<int64_t>(d));
    const auto order = as_order(node.integers("perm", reversed), dimensions);
    if (order) put(node, permuted(tensor, *order));
    return order.has_value();
  }
  if (node.op == "Reshape") {
    const OnnxIntegers* wanted = get<OnnxIntegers>(node, 1);
    if (wanted == nullptr) return false;
    for (const std::optional<int64_t>& extent : *wanted) shape.push_back(extent.value_or(0));
    const auto open = std::find(shape.begin(), shape.end(), -1);
    if (open != shape.end()) {
      *open = 1;
      const std::optional<uint64_t> rest = element_count(shape);
      if (!rest || *rest == 0) return false;
      *open = static_cast<int64_t>(*element_count(tensor.shape) / *rest);
    }
  } else if (node.op == "Squeeze") {
    // A bias that has dimensions of 1 beside its own; of others it would matter which go.
    for (const int64_t extent : tensor.shape)
      if (extent != 1) shape.push_back(extent);
    if (shape.size() > 1) return false;
  } else {
    return false;
  }
  if (element_count(shape) != element_count(tensor.shape)) return false;
  put(node, reshaped(tensor, shape));
  return true;
}

void OnnxWalk::behind_probabilities(const OnnxNode& node) {
  const bool passes = node.op == "Identity" || node.op == "Flatten" || node.op == "Squeeze" ||
                      (node.op == "Cast" && to_floating(node));
  if (!passes) stop(node, "stands behind a softmax or sigmoid, where nothing of Graft's may");
  put(node, Probabilities{});
}

void OnnxWalk::cast(const OnnxNode& node) {
  if (!to_floating(node)) stop(node, "makes whole numbers");
  put(node, value(node, 0));
}

void OnnxWalk::shape(const OnnxNode& node) {
  OnnxIntegers out(kRank, std::nullopt);
  if (const Maps* maps = get<Maps>(node, 0)) {
    const std::optional<int64_t> rows = vector_ ? 1 : height_;
    const std::optional<int64_t> columns = vector_ ? 1 : width_;
    if (maps->form == Maps::Form::nchw) out = {batch_, channels_, rows, columns};
    if (maps->form == Maps::Form::nhwc) out = {batch_, rows, columns, channels_};
    if (maps->form == Maps::Form::flat) out = {batch_, features()};
    // An older layer's, or with zeros around it.
    if (maps->version != version_ || maps->padded) out.assign(out.size(), std::nullopt);
  }
  put(node, std::move(out));
}

void OnnxWalk::transpose(const OnnxNode& node) {
  const std::vector<int64_t> perm = node.integers("perm");
  const bool to_last = perm == std::vector<int64_t>{0, 2, 3, 1};
  const bool to_first = perm == std::vector<int64_t>{0, 3, 1, 2};
  bool same = !perm.empty();
  for (size_t d = 0; d < perm.size(); ++d) same = same && perm[d] == static_cast<int64_t>(d);
  if (same) return put(node, value(node, 0));
  if (const OnnxPixels* image = get<OnnxPixels>(node, 0)) {
    OnnxPixels out = *image;
    if (!(to_last && out.axis == kChannels) && !(to_first && out.axis == kColumns))
      stop(node, "exchanges dimensions of the image");
    out.axis = to_last ? kColumns : kChannels;
    return put(node, std::move(out));
  }
  const Maps maps = newest(node);
  if (to_last && maps.form == Maps::Form::nchw)
    put_maps(node, Maps::Form::nhwc, maps.padded);
  else if (to_first && maps.form == Maps::Form::nhwc)
    put_maps(node, Maps::Form::nchw, maps.padded);
  else
    stop(node, "exchanges dimensions of maps");
}

/// Exchange of channels: Gather, Slice, and Concat of slices. False: nothing of the kind.
bool OnnxWalk::pixels(const OnnxNode& node) {
  OnnxPixels out = *get<OnnxPixels>(node, 0);
  if (out.padded) return false;
  const auto is_axis = [&](int64_t axis) {
    return axis == static_cast<int64_t>(out.axis) ||
           axis + static_cast<int64_t>(kRank) == static_cast<int64_t>(out.axis);
  };
  const auto all_others = [&](const OnnxPixels& other) {
    return other.input == out.input && other.axis == out.axis && !other.padded;
  };
  if (node.op == "Gather") {
    const auto indices = list(node, 1, "");
    if (!indices || !is_axis(node.integer("axis", 0)) || !out.select(*indices)) return false;
  } else if (node.op == "Slice") {
    const auto start = list(node, 1, "starts");
    const auto end = list(node, 2, "ends");
    const auto axes = list(node, 3, "axes");
    const auto steps = list(node, 4, "");
    if (!start || !end || !axes || start->size() != 1 || end->size() != 1 || axes->size() != 1 ||
        !is_axis(axes->front()))
      return false;
    const int64_t by = steps && steps->size() == 1 ? steps->front() : 1;
    if (!out.select(slice_indices(out.channels.size(), start->front(), end->front(), by)))
      return false;
  } else if (node.op == "Concat") {
    if (!is_axis(node.integer("axis", 0))) return false;
    constexpr size_t kMostChannels = 4;
    for (size_t i = 1; i < node.inputs.size(); ++i) {
      const OnnxPixels* more = get<OnnxPixels>(node, i);
      if (more == nullptr || !all_others(*more) || out.channels.size() > kMostChannels)
        return false;
      out.channels.insert(out.channels.end(), more->channels.begin(), more->channels.end());
    }
  } else {
    return false;
  }
  put(node, std::move(out));
  return true;
}

bool OnnxWalk::reaches_output() {
  const auto is_end = [&](std::string_view name) {
    const auto found = values_.find(name);
    if (found == values_.end()) return false;
    const Maps* maps = std::get_if<Maps>(&found->second);
    return std::holds_alternative<Probabilities>(found->second) ||
           (maps != nullptr && maps->version == version_ && !maps->padded);
  };
  return std::any_of(file_->outputs().begin(), file_->outputs().end(), is_end);
}

/// A tensor that many layers read would become as many copies.
void OnnxWalk::check_weights() const {
  uint64_t bytes = 0;
  for (const ForeignLayer& layer : out_.graph.layers)
    for (const auto& [role, tensor] : layer.tensors)
      bytes += element_count(tensor.shape).value_or(0) * sizeof(float);
  // Halves take twice as much in memory as in the file.
  if (bytes > 2 * file_->bytes() + kMostMade)
    fail(ErrorKind::input, "{}: its layers would take {} bytes, and it has {}", file_->name(),
         bytes, file_->bytes());
}

}  // namespace graft
