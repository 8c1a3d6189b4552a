// Hashes: XXH3-128 for identity within Graft, MD5 and SHA-256 because
// those are what publishers of weights give.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "graft/context.h"

namespace graft {

/// XXH3-128 as 32 hex digits. Not cryptographic: for finding identical files and tensors.
std::string content_hash(std::span<const std::byte> bytes);
std::string content_hash_of_file(const std::filesystem::path& path);
/// content_hash_of_file() of each; empty for a file that cannot be read. Tells of its progress.
std::vector<std::string> content_hashes(std::span<const std::filesystem::path> paths,
                                        const RunContext& context);

/// The same hash, fed piece by piece.
class ContentHash {
 public:
  ContentHash();
  ~ContentHash();
  ContentHash(const ContentHash&) = delete;
  ContentHash& operator=(const ContentHash&) = delete;
  void update(std::span<const std::byte> bytes);
  /// content_hash() of all pieces so far, one behind the other.
  [[nodiscard]] std::string finish() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Lower-case hex digits, 32 and 64.
std::string md5_of_file(const std::filesystem::path& path);
std::string sha256_of_file(const std::filesystem::path& path);

}  // namespace graft
