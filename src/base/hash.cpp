#include "base/hash.h"

#include <fmt/format.h>
#include <openssl/evp.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <new>

#include "base/fail.h"
#include "base/file.h"
#include "base/progress.h"
#include "base/threads.h"

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

std::vector<std::string> content_hashes(std::span<const std::filesystem::path> paths,
                                        const RunContext& context) {
  constexpr size_t kAtOnce = 1024;  // between two looks at the clock and at the stop token
  std::vector<std::string> hashes(paths.size());
  ThreadPool pool(context.thread_count());
  Progress progress(context, "reading files", paths.size(), "files");
  for (size_t begin = 0; begin < paths.size(); begin += kAtOnce) {
    context.check_stop();
    const size_t count = std::min(kAtOnce, paths.size() - begin);
    pool.parallel_for(count, [&](size_t i) {
      try {
        hashes[begin + i] = content_hash_of_file(paths[begin + i]);
      } catch (const Error&) {
        hashes[begin + i].clear();
      }
    });
    progress.update(begin + count);
  }
  return hashes;
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

namespace {

std::string digest_of_file(const std::filesystem::path& path, const EVP_MD* kind,
                           std::string_view name) {
  const MappedFile file(path);
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int length = 0;
  if (EVP_Digest(file.bytes().data(), file.bytes().size(), digest.data(), &length, kind, nullptr) !=
      1)
    fail(ErrorKind::io, "{} is not available from this system's OpenSSL (FIPS mode?)", name);
  std::string text;
  for (unsigned int i = 0; i < length; ++i) text += fmt::format("{:02x}", digest.at(i));
  return text;
}

}  // namespace

std::string md5_of_file(const std::filesystem::path& path) {
  return digest_of_file(path, EVP_md5(), "MD5");
}

std::string sha256_of_file(const std::filesystem::path& path) {
  return digest_of_file(path, EVP_sha256(), "SHA-256");
}

}  // namespace graft
