// Hashes: XXH3-128 for identity within Graft, MD5 because Keras publishes its files' MD5.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

namespace graft {

/// XXH3-128 as 32 hex digits. Not cryptographic: for finding identical files and tensors.
std::string content_hash(std::span<const std::byte> bytes);
std::string content_hash_of_file(const std::filesystem::path& path);

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

/// An MD5 that is fed piece by piece.
class Md5 {
 public:
  Md5();
  ~Md5();
  Md5(const Md5&) = delete;
  Md5& operator=(const Md5&) = delete;
  void update(std::span<const std::byte> bytes);
  /// 32 lower-case hex digits; the object is spent afterwards.
  std::string finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string md5_of_file(const std::filesystem::path& path);

}  // namespace graft
