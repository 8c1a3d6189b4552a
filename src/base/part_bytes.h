// The bytes of part files, for those that write and read them.
#pragma once

#include <xxhash.h>

#include <bit>
#include <cstdint>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/part_file.h"

namespace graft {

static_assert(std::endian::native == std::endian::little, "files are little-endian");

inline constexpr const char* kUnfinished = ".unfinished";
inline constexpr std::string_view kPartMagic = "graftprt";
inline constexpr uint32_t kPartVersion = 1;

template <typename T>
void append_number(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

/// Takes a number off the front; the caller has looked that it is there.
template <typename T>
T take_number(std::string_view& text) {
  T value{};
  std::memcpy(&value, text.data(), sizeof value);
  text.remove_prefix(sizeof value);
  return value;
}

/// What a part begins with.
std::string head_bytes(const PartHead& head);

struct ChunkHead {
  uint32_t records;  ///< 0: the end, whose payload is the number of all records
  uint32_t bytes;
  uint64_t hash;
};
static_assert(sizeof(ChunkHead) == 16, "the layout on disk");

/// Of a chunk at that place in that file: one that was moved or copied has another.
inline uint64_t chunk_hash(uint32_t records, std::string_view payload, uint64_t seed,
                           uint64_t offset) {
  return XXH3_64bits_withSeed(payload.data(), payload.size(), seed + offset * 31 + records);
}

inline std::string chunk_bytes(uint32_t records, std::string_view payload, uint64_t seed,
                               uint64_t offset) {
  std::string out;
  append_number(out, records);
  append_number(out, static_cast<uint32_t>(payload.size()));
  append_number(out, chunk_hash(records, payload, seed, offset));
  out += payload;
  return out;
}

/// "`until` block3_pool in place of block4_pool": the first member of two objects that differs.
std::string different_options(const nlohmann::json& mine, const nlohmann::json& theirs);

}  // namespace graft
