#include "weights/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/fail.h"
#include "base/file.h"
#include "base/half.h"
#include "base/hash.h"
#include "base/json.h"
#include "weights/file_seal.h"

static_assert(std::endian::native == std::endian::little,
              "safetensors are little-endian, and this code maps them");

namespace graft {
namespace {

using nlohmann::json;

constexpr uint64_t kMostHeaderBytes = 100'000'000;  // the reference implementation's limit
constexpr size_t kMostDimensions = 8;
constexpr size_t kMostNameBytes = 1000;
constexpr uint64_t kMostBytes = std::numeric_limits<int64_t>::max();
// Some nine values describe a tensor; the state of the longest network that can run has 20,000.
constexpr JsonLimits kHeaderLimits = {.bytes = kMostHeaderBytes, .values = 400'000, .depth = 8};

constexpr std::string_view kMetadata = "__metadata__";

/// In how many characters a key differs from the hash's; npos: in length.
size_t key_distance(std::string_view key) {
  if (key.size() != kSealKey.size()) return std::string_view::npos;
  size_t wrong = 0;
  for (size_t i = 0; i < key.size(); ++i) wrong += key[i] != kSealKey[i] ? 1 : 0;
  return wrong;
}

/// Where the hash's digits stand in a header; npos: it has none there in the form that is written.
size_t find_hash(std::string_view header, std::string_view digits) {
  const std::string entry = fmt::format("\"{}\":\"{}\"", kSealKey, digits);
  const size_t at = header.find(entry);
  return at == std::string_view::npos ? at : at + kSealKey.size() + 4;
}

size_t size_of(StoredType type) {
  return type == StoredType::f16 ? sizeof(uint16_t) : sizeof(float);
}

/// A type of numbers by its name in a header.
struct NumberType {
  std::string_view name;
  ElementType type;
  size_t size;
};
constexpr std::array<NumberType, 12> kNumberTypes = {{{"F32", ElementType::f32, 4},
                                                      {"F16", ElementType::f16, 2},
                                                      {"BF16", ElementType::bf16, 2},
                                                      {"F64", ElementType::f64, 8},
                                                      {"I64", ElementType::other, 8},
                                                      {"U64", ElementType::other, 8},
                                                      {"I32", ElementType::other, 4},
                                                      {"U32", ElementType::other, 4},
                                                      {"I16", ElementType::other, 2},
                                                      {"I8", ElementType::other, 1},
                                                      {"U8", ElementType::other, 1},
                                                      {"BOOL", ElementType::other, 1}}};

struct Entry {
  std::string name;
  std::vector<int64_t> shape;
  ElementType type = ElementType::f32;
  uint64_t begin = 0;
  uint64_t end = 0;
};

class Reader {
 public:
  /// `owner` keeps the bytes alive; null: the caller does.
  Reader(std::string name, std::span<const std::byte> bytes, std::shared_ptr<const void> owner)
      : name_(std::move(name)), bytes_(bytes), owner_(std::move(owner)) {}

  SafetensorsFile read() {
    SafetensorsFile out;
    for (const Entry& entry : parse(out.metadata)) {
      if (entry.type != ElementType::f32 && entry.type != ElementType::f16)
        refuse("tensor " + clipped(entry.name) + " is neither float32 nor float16");
      out.tensors.emplace(entry.name, view(entry, buffer_));
    }
    return out;
  }

  StoredSafetensors open() {
    StoredSafetensors out;
    for (const Entry& entry : parse(out.metadata)) {
      StoredTensor stored{entry.shape, entry.type, {}};
      stored.read = [reader = *this, entry] {
        if (entry.type == ElementType::other)
          fail(ErrorKind::input, "{}: tensor {} is not floating-point", reader.name_,
               clipped(entry.name));
        return reader.view(entry, reader.buffer_);
      };
      out.tensors.emplace(entry.name, std::move(stored));
    }
    out.sealed = sealed_;
    return out;
  }

 private:
  /// Checks every rule of the format; gives the tensors in their order.
  std::vector<Entry> parse(std::map<std::string, std::string>& metadata) {
    const std::span<const std::byte> bytes = bytes_;
    if (bytes.size() < 8) refuse("it is too short for a header");
    uint64_t header_size = 0;
    std::memcpy(&header_size, bytes.data(), 8);
    if (header_size < 2 || header_size > kMostHeaderBytes)
      refuse("its header length is not possible");
    if (header_size > bytes.size() - 8) refuse("it ends inside its header");
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + 8,
                                static_cast<size_t>(header_size));
    if (text.front() != '{') refuse("its header does not begin with '{'");
    const json header = parse_json(
        text, fmt::format("{}: not a valid safetensors file: its header", name_), kHeaderLimits);

    std::vector<Entry> entries;
    entries.reserve(header.size());
    for (const auto& [key, value] : header.items()) {
      if (key == kMetadata)
        read_metadata(value, metadata);
      else
        entries.push_back(read_entry(key, value));
    }
    std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
      return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
    });
    buffer_ = bytes.subspan(8 + header_size);
    uint64_t expected = 0;
    for (const Entry& entry : entries) {
      if (entry.begin != expected)
        refuse("tensor " + clipped(entry.name) + " leaves a gap or overlaps");
      if (entry.end > buffer_.size())
        refuse("it ends inside tensor " + clipped(entry.name) + "; copy it again");
      expected = entry.end;
    }
    if (expected != buffer_.size()) refuse("surplus bytes follow the last tensor");
    for (const auto& [key, value] : metadata) {
      const size_t wrong = key_distance(key);
      if (wrong == 0) verify(text, value);
      // A flipped bit in the key itself must not make this a file without hash.
      if (wrong > 0 && wrong <= 2) refuse_damaged();
    }
    metadata.erase(std::string(kSealKey));
    return entries;
  }

  [[noreturn]] void refuse(const std::string& why) const {
    fail(ErrorKind::input, "{}: not a valid safetensors file: {}", name_, why);
  }

  /// Compares the file with the hash in it.
  void verify(std::string_view header, const std::string& digits) {
    const size_t at =
        digits.size() == kSealBlank.size() ? find_hash(header, digits) : std::string_view::npos;
    if (at != std::string_view::npos) {
      constexpr size_t kLength = 8;  // of the header, in front of it
      sealed_ = seal_of(bytes_, kLength + at) == digits;
      if (sealed_) return;
    }
    refuse_damaged();
  }

  [[noreturn]] void refuse_damaged() const {
    fail(ErrorKind::input,
         "{}: damaged: its bytes are not those that were written (they do not fit {} in its "
         "header); copy it again, or, if another program changed it on purpose, take {} out",
         name_, kSealKey, kSealKey);
  }

  void read_metadata(const json& value, std::map<std::string, std::string>& metadata) const {
    if (!value.is_object()) refuse("__metadata__ is not an object");
    for (const auto& [key, text] : value.items()) {
      if (!text.is_string()) refuse("__metadata__ holds something that is not a string");
      metadata.emplace(key, text.get<std::string>());
    }
  }

  Entry read_entry(const std::string& key, const json& value) const {
    const std::string name = "tensor " + clipped(key);
    if (key.size() > kMostNameBytes) refuse(name + " has a name that is too long");
    if (!value.is_object() || !value.contains("dtype") || !value.contains("shape") ||
        !value.contains("data_offsets"))
      refuse(name + " lacks dtype, shape or data_offsets");
    const auto* type = std::find_if(kNumberTypes.begin(), kNumberTypes.end(),
                                    [&](const NumberType& t) { return value["dtype"] == t.name; });
    if (type == kNumberTypes.end())
      refuse(name + " is neither float32 nor float16, nor of any other type that is known");
    const json& shape = value["shape"];
    const json& offsets = value["data_offsets"];
    const auto is_sizes = [](const json& list) {
      return list.is_array() && std::all_of(list.begin(), list.end(), [](const json& item) {
               return item.is_number_unsigned();
             });
    };
    if (!is_sizes(shape) || shape.size() > kMostDimensions)
      refuse(name + " has a shape that is not possible");
    if (!is_sizes(offsets) || offsets.size() != 2)
      refuse(name + " has offsets that are not possible");
    Entry entry{key, {}, type->type, offsets[0].get<uint64_t>(), offsets[1].get<uint64_t>()};
    uint64_t size = type->size;
    for (const json& extent : shape) {
      const auto n = extent.get<uint64_t>();
      // An empty tensor's other extents are held to the limit too.
      if (n > kMostBytes || (n != 0 && size > kMostBytes / n)) refuse(name + " is too large");
      if (n != 0) size *= n;
      entry.shape.push_back(static_cast<int64_t>(n));
    }
    if (std::find(entry.shape.begin(), entry.shape.end(), 0) != entry.shape.end()) size = 0;
    if (entry.end < entry.begin || entry.end - entry.begin != size)
      refuse("the shape of " + name + " does not fit its bytes");
    return entry;
  }

  /// A view of the bytes where the values are aligned floats, else a copy.
  [[nodiscard]] Tensor view(const Entry& entry, std::span<const std::byte> buffer) const {
    const std::byte* data = buffer.data() + entry.begin;
    const size_t count = (entry.end - entry.begin) / size_of(entry.type);
    if (entry.type == ElementType::f32 && reinterpret_cast<uintptr_t>(data) % alignof(float) == 0)
      return {entry.shape, std::span(reinterpret_cast<const float*>(data), count), owner_};
    std::vector<float> values(count);
    to_floats({data, entry.end - entry.begin}, entry.type, values);
    return {entry.shape, std::move(values)};
  }

  std::string name_;
  std::span<const std::byte> bytes_;
  std::span<const std::byte> buffer_;  // the tensors' values, once parsed
  bool sealed_ = false;                // it has a hash of itself
  std::shared_ptr<const void> owner_;
};

}  // namespace

std::vector<uint16_t> as_halves(const Tensor& tensor, const std::string& name) {
  std::vector<uint16_t> halves;
  halves.reserve(tensor.values().size());
  for (const float value : tensor.values()) {
    if (!(std::abs(value) < kHalfLimit))
      fail(ErrorKind::input, "tensor {} holds {}, which float16 cannot; store it as fp32", name,
           value);
    halves.push_back(to_half(value));
  }
  return halves;
}

SafetensorsFile read_safetensors(const fs::path& path) {
  auto file = std::make_shared<MappedFile>(path);
  const std::span<const std::byte> bytes = file->bytes();
  return Reader(printable(path), bytes, std::move(file)).read();
}

SafetensorsFile read_safetensors(std::span<const std::byte> bytes, const std::string& name) {
  return Reader(name, bytes, nullptr).read();
}

StoredSafetensors open_safetensors(const fs::path& path) {
  auto file = std::make_shared<MappedFile>(path);
  const std::span<const std::byte> bytes = file->bytes();
  return Reader(printable(path), bytes, std::move(file)).open();
}

StoredSafetensors open_safetensors(std::span<const std::byte> bytes, const std::string& name) {
  return Reader(name, bytes, nullptr).open();
}

void write_safetensors(const fs::path& path,
                       const std::vector<std::pair<std::string, Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata, StoredType type) {
  AtomicFile file(path);
  write_safetensors(file, tensors, metadata, type);
  file.commit();
}

void write_safetensors(AtomicFile& file, const std::vector<std::pair<std::string, Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata, StoredType type) {
  json header = json::object();
  json& about = header[std::string(kMetadata)] = metadata;
  about[std::string(kSealKey)] = kSealBlank;
  uint64_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    const uint64_t end = offset + tensor.values().size() * size_of(type);
    header[name] = {{"dtype", type == StoredType::f16 ? "F16" : "F32"},
                    {"shape", tensor.shape()},
                    {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // keeps the buffer aligned
  const uint64_t size = text.size();
  text.insert(0, reinterpret_cast<const char*>(&size), sizeof(size));
  ContentHash hash;
  const auto put = [&](std::span<const std::byte> bytes) {
    file.write(bytes);
    hash.update(bytes);
  };
  put(std::as_bytes(std::span(text)));
  for (const auto& [name, tensor] : tensors) {
    if (type == StoredType::f16)
      put(std::as_bytes(std::span<const uint16_t>(as_halves(tensor, name))));
    else
      put(std::as_bytes(tensor.values()));
  }
  text.replace(find_hash(text, kSealBlank), kSealBlank.size(), hash.finish());
  file.rewrite_start(text);
}

}  // namespace graft
