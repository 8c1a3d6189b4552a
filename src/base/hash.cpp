#include "base/hash.h"

#include <fmt/format.h>
#include <openssl/evp.h>
#include <xxhash.h>

#include <array>
#include <new>

#include "base/fail.h"
#include "base/file.h"

namespace graft {
namespace {

std::string hex(const XXH128_hash_t& hash) {
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

}  // namespace

std::string content_hash(std::span<const std::byte> bytes) {
  return hex(XXH3_128bits(bytes.data(), bytes.size()));
}

std::string content_hash_of_file(const std::filesystem::path& path) {
  return content_hash(read_file(path));
}

struct ContentHash::State {
  XXH3_state_t* xxh3 = XXH3_createState();
};

ContentHash::ContentHash() : state_(std::make_unique<State>()) {
  if (state_->xxh3 == nullptr) throw std::bad_alloc();
  XXH3_128bits_reset(state_->xxh3);
}

ContentHash::~ContentHash() { XXH3_freeState(state_->xxh3); }

void ContentHash::update(std::span<const std::byte> bytes) {
  if (!bytes.empty()) XXH3_128bits_update(state_->xxh3, bytes.data(), bytes.size());
}

std::string ContentHash::finish() const { return hex(XXH3_128bits_digest(state_->xxh3)); }

struct Md5::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
};

Md5::Md5() : state_(std::make_unique<State>()) {
  if (state_->context == nullptr || EVP_DigestInit_ex(state_->context, EVP_md5(), nullptr) != 1)
    fail(ErrorKind::io, "MD5 is not available from this system's OpenSSL (FIPS mode?)");
}

Md5::~Md5() { EVP_MD_CTX_free(state_->context); }

void Md5::update(std::span<const std::byte> bytes) {
  EVP_DigestUpdate(state_->context, bytes.data(), bytes.size());
}

std::string Md5::finish() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int length = 0;
  EVP_DigestFinal_ex(state_->context, digest.data(), &length);
  std::string text;
  for (unsigned int i = 0; i < length; ++i) text += fmt::format("{:02x}", digest.at(i));
  return text;
}

std::string md5_of_file(const std::filesystem::path& path) {
  const MappedFile file(path);
  Md5 md5;
  md5.update(file.bytes());
  return md5.finish();
}

}  // namespace graft
