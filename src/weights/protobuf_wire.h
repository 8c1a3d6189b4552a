// Protocol Buffers on the wire: the fields of one message, as they lie in memory.
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

namespace graft {

/// A field: its number, and its value or its bytes.
/// https://protobuf.dev/programming-guides/encoding
struct WireField {
  enum class Type : uint8_t { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };
  uint32_t number = 0;
  Type type = Type::varint;
  uint64_t value = 0;      ///< of a varint, fixed64 or fixed32
  std::string_view bytes;  ///< of a string, a message or a packed list

  [[nodiscard]] int64_t integer() const { return static_cast<int64_t>(value); }
  [[nodiscard]] float real() const {
    const auto bits = static_cast<uint32_t>(value);
    float out = 0;
    std::memcpy(&out, &bits, sizeof(out));
    return out;
  }
};

/// Goes through the fields of a message, whose bytes outlive the object. Takes no memory, does not
/// recurse: messages in a message are read by a reader of their own. Throws Error(input), which
/// begins with `name`, where the bytes are no message.
class WireReader {
 public:
  WireReader(std::string_view bytes, const std::string& name) : rest_(bytes), name_(name) {}

  /// The next field; nothing: that was all.
  std::optional<WireField> next();
  /// The next number of a packed list of varints; nothing: that was all.
  std::optional<uint64_t> next_packed();

 private:
  uint64_t varint();
  std::string_view take(uint64_t count);
  [[noreturn]] void refuse() const;

  std::string_view rest_;
  const std::string& name_;
};

}  // namespace graft
