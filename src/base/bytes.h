// Bytes of files, looked at.
#pragma once

#include <cstddef>
#include <cstring>
#include <span>
#include <string_view>

namespace graft {

/// Whether the bytes at that place are those of `magic`.
inline bool has_magic(std::span<const std::byte> bytes, std::string_view magic, size_t at = 0) {
  return bytes.size() >= at + magic.size() &&
         std::memcmp(bytes.data() + at, magic.data(), magic.size()) == 0;
}

}  // namespace graft
