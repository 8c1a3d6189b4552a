// Zip archives of stored (not compressed) entries, with zip64 fields where sizes need them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"

namespace graft {

class ZipWriter {
 public:
  /// Appends to `file`, which outlives it and is empty. `alignment`: of the entries' first bytes.
  explicit ZipWriter(AtomicFile& file, uint64_t alignment = 1)
      : file_(file), alignment_(alignment) {}

  void add(const std::string& name, std::span<const std::byte> bytes);
  void add(const std::string& name, std::string_view text);
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

  AtomicFile& file_;
  uint64_t alignment_;
  uint64_t written_ = 0;
  std::vector<Entry> entries_;
};

}  // namespace graft
