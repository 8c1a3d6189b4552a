#include "base/part_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/part_bytes.h"
#include "base/read_at.h"

namespace graft {
namespace {

constexpr size_t kMostHeadBytes = size_t{1} << 20U;
constexpr size_t kPreambleBytes = 24;  // magic, version, length, hash

struct OpenPart {
  Descriptor file;
  uint64_t size = 0;
};

/// A pipe in its place would wait.
OpenPart open_part(const fs::path& path) {
  Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat info {};
  if (!file.valid() || ::fstat(file.get(), &info) != 0)
    fail(errno == ENOENT ? ErrorKind::input : ErrorKind::io, "{}: cannot read: {}", printable(path),
         system_error_text(errno));
  if (!S_ISREG(info.st_mode)) fail(ErrorKind::input, "{}: no plain file", printable(path));
  return {std::move(file), static_cast<uint64_t>(info.st_size)};
}

}  // namespace

std::string list_hash(std::span<const fs::path> paths) {
  ContentHash hash;
  for (const fs::path& path : paths)
    hash.update(std::as_bytes(std::span(path.c_str(), path.native().size() + 1)));
  return hash.finish();
}

fs::path part_path(const fs::path& folder, const std::string& kind, const Shard& shard) {
  const size_t digits = std::to_string(shard.count - 1).size();
  return folder / fmt::format("{}-{:0{}}-of-{}.part", kind, shard.index, digits, shard.count);
}

std::string head_bytes(const PartHead& head) {
  const std::string text = nlohmann::json{{"kind", head.kind},          {"shard", head.shard.index},
                                          {"shards", head.shard.count}, {"images", head.images},
                                          {"list", head.list},          {"about", head.about}}
                               .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  std::string out(kPartMagic);
  append_number(out, kPartVersion);
  append_number(out, static_cast<uint32_t>(text.size()));
  append_number(out, XXH3_64bits(text.data(), text.size()));
  return out + text;
}

std::string different_options(const nlohmann::json& mine, const nlohmann::json& theirs) {
  for (const auto& [key, value] : mine.items()) {
    const nlohmann::json other = theirs.value(key, nlohmann::json());
    if (value != other && key != "id")
      return fmt::format("other options: {} {} in place of {}", key,
                         other.is_string() ? other.get<std::string>() : other.dump(),
                         value.is_string() ? value.get<std::string>() : value.dump());
  }
  return "other options: weights or preprocessing differ";
}

PartReader::PartReader(std::filesystem::path path) : path_(std::move(path)) {
  const OpenPart part = open_part(path_);
  const std::string preamble = read_at(part.file.get(), 0, kPreambleBytes, path_);
  std::string_view rest = preamble;
  if (preamble.size() < kPreambleBytes || !rest.starts_with(kPartMagic)) fail_foreign();
  rest.remove_prefix(kPartMagic.size());
  if (take_number<uint32_t>(rest) != kPartVersion)
    fail(ErrorKind::input, "{}: written by another version of graft; make all parts with one",
         printable(path_));
  const auto length = take_number<uint32_t>(rest);
  const auto hash = take_number<uint64_t>(rest);
  const std::string text =
      read_at(part.file.get(), kPreambleBytes, std::min<size_t>(length, kMostHeadBytes), path_);
  if (text.size() != length || XXH3_64bits(text.data(), text.size()) != hash) fail_damaged();
  const std::string name = printable(path_);
  const nlohmann::json document = parse_json(text, name);
  const JsonField field(document, name);
  head_.kind = field.at("kind").text();
  head_.shard.count = static_cast<uint32_t>(field.at("shards").integer(1, kMostShards));
  head_.shard.index =
      static_cast<uint32_t>(field.at("shard").integer(0, int64_t{head_.shard.count} - 1));
  head_.images = static_cast<uint64_t>(field.at("images").integer(0, int64_t{1} << 48U));
  head_.list = field.at("list").text();
  head_.about = field.at("about").raw();
  const std::string whole = preamble + text;
  seed_ = XXH3_64bits(whole.data(), whole.size());
  offset_ = whole.size();
}

void PartReader::fail_foreign() const {
  fail(ErrorKind::input, "{}: no part of a sharded result; name the files *.part that --shard made",
       printable(path_));
}

void PartReader::fail_damaged() const {
  fail(ErrorKind::input,
       "{}: damaged or cut short behind byte {}; run its shard again, which repairs it",
       printable(path_), offset_);
}

/// False at the end mark.
bool PartReader::read_chunk() {
  const OpenPart part = open_part(path_);
  const std::string bytes = read_at(part.file.get(), offset_, sizeof(ChunkHead), path_);
  ChunkHead chunk{};
  if (bytes.size() < sizeof chunk) fail_damaged();
  std::memcpy(&chunk, bytes.data(), sizeof chunk);
  if (part.size < offset_ + sizeof chunk || chunk.bytes > part.size - offset_ - sizeof chunk)
    fail_damaged();
  chunk_ = read_at(part.file.get(), offset_ + sizeof chunk, chunk.bytes, path_);
  if (chunk_.size() != chunk.bytes ||
      chunk_hash(chunk.records, chunk_, seed_, offset_) != chunk.hash)
    fail_damaged();
  rest_ = chunk_;
  if (chunk.records == 0) {
    if (rest_.size() != sizeof(uint64_t) || take_number<uint64_t>(rest_) != records_ ||
        offset_ + sizeof chunk + chunk.bytes != part.size)
      fail_damaged();
    ended_ = true;
    return false;
  }
  offset_ += sizeof chunk + chunk.bytes;
  records_ += chunk.records;
  left_ = chunk.records;
  return true;
}

bool PartReader::next(PartRecord& record) {
  constexpr size_t kRecordHead = 16;
  if (ended_) return false;
  if (left_ == 0 && !read_chunk()) return false;
  if (rest_.size() < kRecordHead) fail_damaged();
  record.image = take_number<uint64_t>(rest_);
  const auto path = take_number<uint32_t>(rest_);
  const auto content = take_number<uint32_t>(rest_);
  if (path > rest_.size() || content > rest_.size() - path) fail_damaged();
  record.path = rest_.substr(0, path);
  record.content = rest_.substr(path, content);
  rest_.remove_prefix(size_t{path} + content);
  --left_;
  return true;
}

}  // namespace graft
