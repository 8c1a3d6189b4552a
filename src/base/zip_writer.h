// Zip archives of stored (not compressed) entries, with zip64 fields where sizes need them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"

namespace graft {

/// An entry in a list of a whole archive's, by which two archives are the same.
std::string zip_listing(std::string_view name, uint32_t crc, uint64_t size);

class ZipWriter {
 public:
  static constexpr uint64_t kMost32 = 0xFFFFFFFF;  // also the mark for "see the zip64 field"

  /// Appends to `file`, which outlives it and is empty. `alignment`: of the entries' first bytes.
  /// Sizes and places from `zip64_from` on stand in zip64 fields; tests have smaller ones there.
  explicit ZipWriter(AtomicFile& file, uint64_t alignment = 1, uint64_t zip64_from = kMost32)
      : file_(file), alignment_(alignment), zip64_from_(zip64_from) {}

  void add(const std::string& name, std::span<const std::byte> bytes);
  void add(const std::string& name, std::string_view text);
  /// zip_listing() of what was added so far.
  [[nodiscard]] std::string listing() const;
  /// Writes the directory; nothing can be added afterwards.
  void finish();

 private:
  struct Entry {
    std::string name;
    uint32_t crc = 0;
    uint64_t size = 0;
    uint64_t offset = 0;
  };

  void put(std::string_view bytes);
  /// For a field of 32 bits.
  [[nodiscard]] uint32_t short_of(uint64_t value) const {
    return static_cast<uint32_t>(value >= zip64_from_ ? kMost32 : value);
  }

  AtomicFile& file_;
  uint64_t alignment_;
  uint64_t zip64_from_;
  uint64_t written_ = 0;
  std::vector<Entry> entries_;
};

}  // namespace graft
