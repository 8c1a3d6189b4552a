#include "weights/safetensors.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "base/file.h"
#include "base/half.h"
#include "graft/error.h"

static_assert(std::endian::native == std::endian::little,
              "safetensors are little-endian, and this code maps them");

namespace graft {
namespace {

using nlohmann::json;

constexpr uint64_t kMostHeaderBytes = 100'000'000;  // the reference implementation's limit
constexpr size_t kMostDimensions = 8;

size_t size_of(StoredType type) {
  return type == StoredType::f16 ? sizeof(uint16_t) : sizeof(float);
}

struct Entry {
  std::string name;
  std::vector<int64_t> shape;
  StoredType type = StoredType::f32;
  uint64_t begin = 0;
  uint64_t end = 0;
};

class Reader {
 public:
  /// `owner` keeps the bytes alive; null: the caller does.
  Reader(std::string name, std::span<const std::byte> bytes, std::shared_ptr<const void> owner)
      : name_(std::move(name)), bytes_(bytes), owner_(std::move(owner)) {}

  SafetensorsFile read() {
    const std::span<const std::byte> bytes = bytes_;
    if (bytes.size() < 8) refuse("it is too short for a header");
    uint64_t header_size = 0;
    std::memcpy(&header_size, bytes.data(), 8);
    if (header_size < 2 || header_size > kMostHeaderBytes)
      refuse("its header length is not possible");
    if (header_size > bytes.size() - 8) refuse("it ends inside its header");
    const json header = parse_header(
        {reinterpret_cast<const char*>(bytes.data()) + 8, static_cast<size_t>(header_size)});

    SafetensorsFile out;
    std::vector<Entry> entries;
    for (const auto& [key, value] : header.items()) {
      if (key == "__metadata__")
        read_metadata(value, out.metadata);
      else
        entries.push_back(read_entry(key, value));
    }
    std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
      return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
    });
    const std::span<const std::byte> buffer = bytes.subspan(8 + header_size);
    uint64_t expected = 0;
    for (Entry& entry : entries) {
      if (entry.begin != expected) refuse("tensor " + entry.name + " leaves a gap or overlaps");
      if (entry.end > buffer.size())
        refuse("it ends inside tensor " + entry.name + "; copy it again");
      expected = entry.end;
      out.tensors.emplace(entry.name, view(entry, buffer));
    }
    if (expected != buffer.size()) refuse("surplus bytes follow the last tensor");
    return out;
  }

 private:
  [[noreturn]] void refuse(const std::string& why) const {
    fail(ErrorKind::input, "{}: not a valid safetensors file: {}", name_, why);
  }

  json parse_header(std::string_view text) const {
    if (text.front() != '{') refuse("its header does not begin with '{'");
    // A callback, since the parser itself lets a later duplicate win silently.
    std::vector<std::set<std::string>> open;
    std::string duplicate;
    const auto watch = [&](int /*depth*/, json::parse_event_t event, json& parsed) {
      if (event == json::parse_event_t::object_start) open.emplace_back();
      if (event == json::parse_event_t::object_end) open.pop_back();
      if (event == json::parse_event_t::key && !open.back().insert(parsed).second)
        duplicate = parsed;
      return true;
    };
    json header = json::parse(text, watch, /*allow_exceptions=*/false);
    if (header.is_discarded() || !header.is_object()) refuse("its header is not a JSON object");
    if (!duplicate.empty()) refuse("the key '" + duplicate + "' stands twice in its header");
    return header;
  }

  void read_metadata(const json& value, std::map<std::string, std::string>& metadata) const {
    if (!value.is_object()) refuse("__metadata__ is not an object");
    for (const auto& [key, text] : value.items()) {
      if (!text.is_string()) refuse("__metadata__ holds something that is not a string");
      metadata.emplace(key, text.get<std::string>());
    }
  }

  Entry read_entry(const std::string& key, const json& value) const {
    if (!value.is_object() || !value.contains("dtype") || !value.contains("shape") ||
        !value.contains("data_offsets"))
      refuse("tensor " + key + " lacks dtype, shape or data_offsets");
    if (value["dtype"] != "F32" && value["dtype"] != "F16")
      refuse("tensor " + key + " is neither float32 nor float16");
    const json& shape = value["shape"];
    const json& offsets = value["data_offsets"];
    const auto is_sizes = [](const json& list) {
      return list.is_array() && std::all_of(list.begin(), list.end(), [](const json& item) {
               return item.is_number_unsigned();
             });
    };
    if (!is_sizes(shape) || shape.size() > kMostDimensions)
      refuse("tensor " + key + " has a shape that is not possible");
    if (!is_sizes(offsets) || offsets.size() != 2)
      refuse("tensor " + key + " has offsets that are not possible");
    Entry entry{key,
                {},
                value["dtype"] == "F16" ? StoredType::f16 : StoredType::f32,
                offsets[0].get<uint64_t>(),
                offsets[1].get<uint64_t>()};
    uint64_t size = size_of(entry.type);
    for (const json& extent : shape) {
      const auto n = extent.get<uint64_t>();
      if (n != 0 && size > std::numeric_limits<int64_t>::max() / n)
        refuse("tensor " + key + " is too large");
      size *= n;
      entry.shape.push_back(static_cast<int64_t>(n));
    }
    if (entry.end < entry.begin || entry.end - entry.begin != size)
      refuse("the shape of tensor " + key + " does not fit its bytes");
    return entry;
  }

  /// A view of the bytes where the values are aligned floats, else a copy.
  [[nodiscard]] Tensor view(const Entry& entry, std::span<const std::byte> buffer) const {
    const std::byte* data = buffer.data() + entry.begin;
    const size_t count = (entry.end - entry.begin) / size_of(entry.type);
    std::vector<float> values;
    if (entry.type == StoredType::f16) {
      values.reserve(count);
      for (size_t i = 0; i < count; ++i) {
        uint16_t half = 0;
        std::memcpy(&half, data + i * sizeof(half), sizeof(half));
        values.push_back(from_half(half));
      }
      return {entry.shape, std::move(values)};
    }
    if (reinterpret_cast<uintptr_t>(data) % alignof(float) == 0)
      return {entry.shape, std::span(reinterpret_cast<const float*>(data), count), owner_};
    values.resize(count);
    std::memcpy(values.data(), data, count * sizeof(float));
    return {entry.shape, std::move(values)};
  }

  std::string name_;
  std::span<const std::byte> bytes_;
  std::shared_ptr<const void> owner_;
};

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

}  // namespace

SafetensorsFile read_safetensors(const fs::path& path) {
  auto file = std::make_shared<MappedFile>(path);
  const std::span<const std::byte> bytes = file->bytes();
  return Reader(printable(path), bytes, std::move(file)).read();
}

SafetensorsFile read_safetensors(std::span<const std::byte> bytes, const std::string& name) {
  return Reader(name, bytes, nullptr).read();
}

void write_safetensors(const fs::path& path,
                       const std::vector<std::pair<std::string, Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata, StoredType type) {
  json header = json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
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
  AtomicFile file(path);
  file.write(std::as_bytes(std::span(&size, 1)));
  file.write(text);
  for (const auto& [name, tensor] : tensors) {
    if (type == StoredType::f16)
      file.write(std::as_bytes(std::span<const uint16_t>(as_halves(tensor, name))));
    else
      file.write(std::as_bytes(tensor.values()));
  }
  file.commit();
}

}  // namespace graft
