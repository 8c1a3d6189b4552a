// Zip archives in memory: their entries, and reading one whole.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace graft {

struct ZipEntry {
  std::string name;
  uint64_t size = 0;  ///< of its content, as the archive states it
  uint64_t index = 0;
  uint32_t crc = 0;  ///< as the archive states it; compared where it is read
};

/// An archive whose bytes outlive the object. Not thread-safe. Everything throws Error(input) that
/// begins with `name`.
class ZipFile {
 public:
  ZipFile(std::span<const std::byte> bytes, std::string name);
  ~ZipFile();
  ZipFile(const ZipFile&) = delete;
  ZipFile& operator=(const ZipFile&) = delete;

  [[nodiscard]] const std::vector<ZipEntry>& entries() const { return entries_; }
  /// The entry of that name, or null. Where several bear it, the last counts, as in Python.
  [[nodiscard]] const ZipEntry* find(std::string_view name) const;

  /// Name, CRC-32 and size of every entry but one, a line each: what zip_listing() of
  /// base/zip_writer.h says of the same entries.
  [[nodiscard]] std::string listing_without(const ZipEntry& entry) const;

  /// Reads an entry of `out.size()` bytes and compares its CRC-32.
  void read(const ZipEntry& entry, std::span<std::byte> out) const;
  /// The same of an entry of at most `most` bytes, and of no more than the archive's own size and
  /// 64 MB: what would inflate beyond that is no file of weights.
  [[nodiscard]] std::vector<std::byte> read(const ZipEntry& entry, uint64_t most) const;
  /// Throws if the entry claims more than that.
  void check_size(const ZipEntry& entry) const;

 private:
  struct Archive;
  [[noreturn]] void refuse(const std::string& why) const;

  std::string name_;
  uint64_t bytes_;
  std::unique_ptr<Archive> archive_;
  std::vector<ZipEntry> entries_;
  std::unordered_map<std::string_view, size_t> by_name_;  // into entries_
};

}  // namespace graft
