#include "weights/protobuf_wire.h"

#include <bit>

#include "base/fail.h"

static_assert(std::endian::native == std::endian::little, "fixed numbers are copied as they lie");

namespace graft {

void WireReader::refuse() const {
  fail(ErrorKind::input,
       "{}: not a usable ONNX model: it is cut short or damaged; download or copy it again", name_);
}

std::string_view WireReader::take(uint64_t count) {
  if (count > rest_.size()) refuse();
  const std::string_view out = rest_.substr(0, count);
  rest_.remove_prefix(count);
  return out;
}

uint64_t WireReader::varint() {
  uint64_t out = 0;
  constexpr unsigned kBits = 7;
  constexpr unsigned kMostBits = 64;
  for (unsigned shift = 0; shift < kMostBits; shift += kBits) {
    const auto byte = static_cast<unsigned char>(take(1).front());
    out |= static_cast<uint64_t>(byte & 0x7FU) << shift;
    if ((byte & 0x80U) == 0) return out;
  }
  refuse();
}

std::optional<uint64_t> WireReader::next_packed() {
  if (rest_.empty()) return std::nullopt;
  return varint();
}

std::optional<WireField> WireReader::next() {
  if (rest_.empty()) return std::nullopt;
  const uint64_t tag = varint();
  WireField out;
  constexpr uint64_t kMostNumber = (uint64_t{1} << 29U) - 1;
  if (tag >> 3U == 0 || tag >> 3U > kMostNumber) refuse();
  out.number = static_cast<uint32_t>(tag >> 3U);
  switch (tag & 7U) {
    case 0:
      out.type = WireField::Type::varint;
      out.value = varint();
      break;
    case 1:
      out.type = WireField::Type::fixed64;
      std::memcpy(&out.value, take(sizeof(uint64_t)).data(), sizeof(uint64_t));
      break;
    case 2:
      out.type = WireField::Type::bytes;
      out.bytes = take(varint());
      break;
    case 5:
      out.type = WireField::Type::fixed32;
      std::memcpy(&out.value, take(sizeof(uint32_t)).data(), sizeof(uint32_t));
      break;
    default:  // groups, which no file of today has
      refuse();
  }
  return out;
}

}  // namespace graft
