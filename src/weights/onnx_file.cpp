#include "weights/onnx_file.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "base/words.h"
#include "weights/onnx_external.h"
#include "weights/protobuf_wire.h"

namespace graft {
namespace {

using Type = WireField::Type;

// Numbers of fields: onnx.proto of onnx/onnx, IR version 10; they never change.
namespace model_field {
constexpr uint32_t kProducer = 2, kGraph = 7, kOpset = 8, kMetadata = 14;
}
namespace graph_field {
constexpr uint32_t kNode = 1, kInitializer = 5, kInput = 11, kOutput = 12;
}
namespace node_field {
constexpr uint32_t kInput = 1, kOutput = 2, kName = 3, kOp = 4, kAttribute = 5, kDomain = 7;
}
namespace attribute_field {
constexpr uint32_t kName = 1, kFloat = 2, kInteger = 3, kText = 4, kTensor = 5, kIntegers = 8;
}
namespace tensor_field {
constexpr uint32_t kDims = 1, kType = 2, kFloats = 4, kInt32s = 5, kInt64s = 7, kName = 8, kRaw = 9,
                   kDoubles = 10, kExternal = 13, kLocation = 14;
}

// TensorProto.DataType.
constexpr int kFloat = 1, kInt32 = 6, kInt64 = 7, kFloat16 = 10, kDouble = 11, kBfloat16 = 16;

// A VGG has some 100 nodes and tensors, the largest classifiers some 1,000. A name or a node takes
// 2 bytes of a file and some 200 of memory: these keep that below 32 MB.
constexpr size_t kMostNodes = 10'000;
constexpr size_t kMostTensors = 10'000;
constexpr size_t kMostNames = 50'000;  // inputs and outputs of nodes, attributes, metadata
constexpr size_t kMostNumbers = 1'000'000;
constexpr size_t kMostDimensions = 8;

ElementType element_of(int type) {
  switch (type) {
    case kFloat:
      return ElementType::f32;
    case kFloat16:
      return ElementType::f16;
    case kBfloat16:
      return ElementType::bf16;
    case kDouble:
      return ElementType::f64;
    default:
      return ElementType::other;
  }
}

/// Bytes of an element in raw_data; 0: of a type whose values are not looked at.
size_t stored_size(int type) {
  if (type == kInt32) return sizeof(int32_t);
  if (type == kInt64) return sizeof(int64_t);
  return size_of(element_of(type));
}

/// The field that holds values where they are no bytes, and the wire type of one of them.
std::pair<uint32_t, Type> list_of(int type) {
  switch (type) {
    case kFloat:
      return {tensor_field::kFloats, Type::fixed32};
    case kDouble:
      return {tensor_field::kDoubles, Type::fixed64};
    case kInt64:
      return {tensor_field::kInt64s, Type::varint};
    default:  // int32, and the 16 bits of a half
      return {tensor_field::kInt32s, Type::varint};
  }
}

size_t width(Type type) { return type == Type::fixed32 ? sizeof(uint32_t) : sizeof(uint64_t); }

/// Calls `take` with each value of a tensor's list, packed or not.
template <typename Take>
void each_value(std::string_view message, int type, const std::string& name, Take&& take) {
  const auto [number, wire] = list_of(type);
  WireReader fields(message, name);
  while (const std::optional<WireField> field = fields.next()) {
    if (field->number != number) continue;
    if (field->type == wire) {
      take(field->value);
    } else if (field->type == Type::bytes && wire == Type::varint) {
      WireReader packed(field->bytes, name);
      while (const std::optional<uint64_t> value = packed.next_packed()) take(*value);
    } else if (field->type == Type::bytes) {
      const size_t size = width(wire);
      for (size_t at = 0; at + size <= field->bytes.size(); at += size) {
        uint64_t value = 0;
        std::memcpy(&value, field->bytes.data() + at, size);
        take(value);
      }
    }
  }
}

std::span<const std::byte> as_bytes(std::string_view text) {
  return std::as_bytes(std::span(text));
}

}  // namespace

std::string shown(std::string_view name) {
  constexpr size_t kMost = 200;
  return "'" + clipped(printable(fs::path(std::string(name.substr(0, kMost))))) + "'";
}

const OnnxAttribute* OnnxNode::find(std::string_view attribute) const {
  for (const OnnxAttribute& a : attributes)
    if (a.name == attribute) return &a;
  return nullptr;
}

int64_t OnnxNode::integer(std::string_view attribute, int64_t otherwise) const {
  const OnnxAttribute* a = find(attribute);
  return a != nullptr && a->integer ? *a->integer : otherwise;
}

float OnnxNode::real(std::string_view attribute, float otherwise) const {
  const OnnxAttribute* a = find(attribute);
  return a != nullptr && a->real ? *a->real : otherwise;
}

std::string_view OnnxNode::text(std::string_view attribute, std::string_view otherwise) const {
  const OnnxAttribute* a = find(attribute);
  return a != nullptr && a->text ? *a->text : otherwise;
}

std::vector<int64_t> OnnxNode::integers(std::string_view attribute,
                                        const std::vector<int64_t>& otherwise) const {
  const OnnxAttribute* a = find(attribute);
  return a != nullptr ? a->integers : otherwise;
}

class OnnxFile::Parser {
 public:
  explicit Parser(OnnxFile& out) : out_(out) {}

  void model(std::string_view message) {
    std::string_view graph;
    each(message, [&](const WireField& field) {
      if (field.number == model_field::kOpset && field.type == Type::bytes) {
        opset(field.bytes);
      } else if (field.number == model_field::kProducer && field.type == Type::bytes) {
        out_.producer_ = field.bytes;
      } else if (field.number == model_field::kMetadata && field.type == Type::bytes) {
        count(names_, kMostNames, "names");
        const auto [key, value] = entry(field.bytes);
        out_.metadata_.insert_or_assign(key, value);
      } else if (field.number == model_field::kGraph && field.type == Type::bytes) {
        if (graph.data() != nullptr) refuse("it has two graphs");
        graph = field.bytes;
      }
    });
    if (graph.data() == nullptr) refuse("it has no graph");
    each(graph, [&](const WireField& field) {
      if (field.type != Type::bytes) return;
      if (field.number == graph_field::kNode)
        node(field.bytes);
      else if (field.number == graph_field::kInitializer)
        initializer(field.bytes);
      else if (field.number == graph_field::kInput)
        input(field.bytes);
      else if (field.number == graph_field::kOutput)
        output(field.bytes);
    });
  }

 private:
  [[noreturn]] void refuse(const std::string& why) const {
    fail(ErrorKind::input, "{}: not a usable ONNX model: {}", out_.name_, why);
  }

  template <typename Take>
  void each(std::string_view message, Take&& take) const {
    WireReader fields(message, out_.name_);
    while (const std::optional<WireField> field = fields.next()) take(*field);
  }

  void count(size_t& number, size_t most, const char* what) const {
    if (++number > most) refuse(fmt::format("it has more than {} {}", most, what));
  }

  /// StringStringEntryProto.
  [[nodiscard]] std::pair<std::string_view, std::string_view> entry(
      std::string_view message) const {
    std::pair<std::string_view, std::string_view> out;
    each(message, [&](const WireField& field) {
      if (field.type == Type::bytes && field.number == 1) out.first = field.bytes;
      if (field.type == Type::bytes && field.number == 2) out.second = field.bytes;
    });
    return out;
  }

  void opset(std::string_view message) {
    std::string_view domain;
    int64_t version = 0;
    each(message, [&](const WireField& field) {
      if (field.number == 1 && field.type == Type::bytes) domain = field.bytes;
      if (field.number == 2 && field.type == Type::varint) version = field.integer();
    });
    if (domain.empty() || domain == "ai.onnx") out_.opset_ = version;
  }

  void node(std::string_view message) {
    count(nodes_, kMostNodes, "nodes");
    OnnxNode node;
    each(message, [&](const WireField& field) {
      if (field.type != Type::bytes) return;
      switch (field.number) {
        case node_field::kInput:
          count(names_, kMostNames, "names");
          node.inputs.push_back(field.bytes);
          break;
        case node_field::kOutput:
          count(names_, kMostNames, "names");
          node.outputs.push_back(field.bytes);
          break;
        case node_field::kName:
          node.name = field.bytes;
          break;
        case node_field::kOp:
          node.op = field.bytes;
          break;
        case node_field::kDomain:
          node.domain = field.bytes;
          break;
        case node_field::kAttribute:
          count(names_, kMostNames, "names");
          node.attributes.push_back(attribute(field.bytes));
          break;
        default:
          break;
      }
    });
    out_.nodes_.push_back(std::move(node));
  }

  OnnxAttribute attribute(std::string_view message) {
    OnnxAttribute out;
    each(message, [&](const WireField& field) {
      const bool is_bytes = field.type == Type::bytes;
      switch (field.number) {
        case attribute_field::kName:
          if (is_bytes) out.name = field.bytes;
          break;
        case attribute_field::kFloat:
          if (field.type == Type::fixed32) out.real = field.real();
          break;
        case attribute_field::kInteger:
          if (field.type == Type::varint) out.integer = field.integer();
          break;
        case attribute_field::kText:
          if (is_bytes) out.text = field.bytes;
          break;
        case attribute_field::kTensor:
          if (is_bytes) out.tensor = tensor(field.bytes);
          break;
        case attribute_field::kIntegers:
          append(out.integers, field);
          break;
        default:  // subgraphs and the like: what needs them is an operator that is not read
          break;
      }
    });
    return out;
  }

  /// A number of a list, or several that are packed.
  void append(std::vector<int64_t>& list, const WireField& field) {
    if (field.type == Type::varint) {
      count(numbers_, kMostNumbers, "numbers in its attributes");
      list.push_back(field.integer());
    } else if (field.type == Type::bytes) {
      WireReader packed(field.bytes, out_.name_);
      while (const std::optional<uint64_t> value = packed.next_packed()) {
        count(numbers_, kMostNumbers, "numbers in its attributes");
        list.push_back(static_cast<int64_t>(*value));
      }
    }
  }

  void initializer(std::string_view message) {
    OnnxTensor read = tensor(message);
    if (!out_.initializers_.emplace(read.name, read).second)
      refuse("it has two tensors of the name " + shown(read.name));
  }

  OnnxTensor tensor(std::string_view message) {
    count(tensors_, kMostTensors, "tensors");
    OnnxTensor out;
    out.message = message;
    bool external = false;
    std::map<std::string_view, std::string_view> place;
    each(message, [&](const WireField& field) {
      const bool is_bytes = field.type == Type::bytes;
      if (field.number == tensor_field::kDims) {
        append(out.shape, field);
      } else if (field.number == tensor_field::kType && field.type == Type::varint) {
        out.type = static_cast<int>(std::min<uint64_t>(field.value, 1000));
      } else if (field.number == tensor_field::kName && is_bytes) {
        out.name = field.bytes;
      } else if (field.number == tensor_field::kRaw && is_bytes) {
        out.raw = as_bytes(field.bytes);
      } else if (field.number == tensor_field::kExternal && is_bytes) {
        count(names_, kMostNames, "names");
        place.insert(entry(field.bytes));
      } else if (field.number == tensor_field::kLocation && field.type == Type::varint) {
        external = field.value == 1;
      }
    });
    out.element = element_of(out.type);
    measure(out, external, place);
    return out;
  }

  /// Compares what is stored of a tensor with its shape.
  void measure(OnnxTensor& tensor, bool external,
               const std::map<std::string_view, std::string_view>& place) {
    const std::string name = "tensor " + shown(tensor.name);
    const std::optional<uint64_t> elements = element_count(tensor.shape);
    if (tensor.shape.size() > kMostDimensions || !elements)
      refuse(name + " has a shape that is not possible");
    tensor.elements = *elements;
    const size_t size = stored_size(tensor.type);
    if (size == 0) return;  // text, truth values and others, which no layer reads
    if (external) {
      tensor.raw = out_.external_->find(place, *elements * size, out_.name_, name);
      return;
    }
    uint64_t stored = 0;
    if (tensor.raw)
      stored = tensor.raw->size() % size == 0 ? tensor.raw->size() / size : *elements + 1;
    else
      each_value(tensor.message, tensor.type, out_.name_, [&](uint64_t) { ++stored; });
    if (stored != *elements)
      refuse(
          fmt::format("{} should have {} values, of which {} are stored", name, *elements, stored));
  }

  void input(std::string_view message) {
    count(names_, kMostNames, "names");
    OnnxInput out;
    each(message, [&](const WireField& field) {
      if (field.type != Type::bytes) return;
      if (field.number == 1) out.name = field.bytes;
      if (field.number == 2) type(field.bytes, out);
    });
    out_.inputs_.push_back(std::move(out));
  }

  void output(std::string_view message) {
    count(names_, kMostNames, "names");
    each(message, [&](const WireField& field) {
      if (field.number == 1 && field.type == Type::bytes) out_.outputs_.push_back(field.bytes);
    });
  }

  /// TypeProto, of tensors.
  void type(std::string_view message, OnnxInput& out) {
    each(message, [&](const WireField& tensor) {
      if (tensor.number != 1 || tensor.type != Type::bytes) return;
      each(tensor.bytes, [&](const WireField& field) {
        if (field.number == 1 && field.type == Type::varint)
          out.type = static_cast<int>(std::min<uint64_t>(field.value, 1000));
        if (field.number != 2 || field.type != Type::bytes) return;
        out.shape.emplace();
        each(field.bytes, [&](const WireField& dimension) {
          if (dimension.number != 1 || dimension.type != Type::bytes) return;
          count(numbers_, kMostNumbers, "numbers in its attributes");
          int64_t extent = -1;
          each(dimension.bytes, [&](const WireField& value) {
            if (value.number == 1 && value.type == Type::varint) extent = value.integer();
          });
          out.shape->push_back(extent > 0 ? extent : -1);
        });
      });
    });
  }

  OnnxFile& out_;
  size_t nodes_ = 0;
  size_t tensors_ = 0;
  size_t names_ = 0;
  size_t numbers_ = 0;
};

OnnxFile::~OnnxFile() = default;

std::shared_ptr<const OnnxFile> OnnxFile::open(const fs::path& path) {
  const auto map = std::make_shared<const MappedFile>(path);
  const std::shared_ptr<OnnxFile> out(new OnnxFile);
  out->name_ = printable(path);
  out->owner_ = map;
  out->self_ = out;
  const fs::path folder = path.parent_path();
  out->external_ = std::make_unique<OnnxExternal>(folder.empty() ? fs::path(".") : folder);
  const std::span<const std::byte> bytes = map->bytes();
  Parser(*out).model({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  out->bytes_ = bytes.size() + out->external_->bytes();
  return out;
}

std::shared_ptr<const OnnxFile> OnnxFile::read(std::string_view bytes, const std::string& name) {
  const std::shared_ptr<OnnxFile> out(new OnnxFile);
  out->name_ = name;
  out->self_ = out;
  out->external_ = std::make_unique<OnnxExternal>(fs::path());
  Parser(*out).model(bytes);
  out->bytes_ = bytes.size();
  return out;
}

Tensor OnnxFile::values(const OnnxTensor& tensor) const {
  const std::string shown_name = shown(tensor.name);
  if (tensor.element == ElementType::other)
    fail(ErrorKind::input, "{}: tensor {} is not floating-point", name_, shown_name);
  std::vector<float> out(tensor.elements);
  if (tensor.raw) {
    to_floats(*tensor.raw, tensor.element, out);
    return {tensor.shape, std::move(out)};
  }
  size_t at = 0;
  const size_t size = size_of(tensor.element);
  each_value(tensor.message, tensor.type, name_, [&](uint64_t value) {
    std::array<std::byte, sizeof(value)> bytes{};
    std::memcpy(bytes.data(), &value, sizeof(value));
    to_floats(std::span(bytes).first(size), tensor.element, std::span(out).subspan(at++, 1));
  });
  return {tensor.shape, std::move(out)};
}

StoredTensor OnnxFile::stored(const OnnxTensor& tensor) const {
  return {tensor.shape, tensor.element,
          [self = self_.lock(), tensor] { return self->values(tensor); }};
}

std::optional<std::vector<int64_t>> OnnxFile::integers(const OnnxTensor& tensor) const {
  constexpr uint64_t kMost = 64;
  if ((tensor.type != kInt32 && tensor.type != kInt64) || tensor.elements > kMost)
    return std::nullopt;
  std::vector<int64_t> out;
  const auto take = [&](uint64_t value) {
    out.push_back(tensor.type == kInt32 ? static_cast<int32_t>(value)
                                        : static_cast<int64_t>(value));
  };
  if (!tensor.raw) {
    each_value(tensor.message, tensor.type, name_, take);
    return out;
  }
  const size_t size = stored_size(tensor.type);
  for (size_t at = 0; at < tensor.raw->size(); at += size) {
    uint64_t value = 0;
    std::memcpy(&value, tensor.raw->data() + at, size);
    take(value);
  }
  return out;
}

}  // namespace graft
