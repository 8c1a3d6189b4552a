// Files in which processes that do not talk to each other leave their parts of a result, one record
// an image, and the joining of all parts. docs/formats.md has the bytes.
//
// A part grows under the name PART.unfinished, chunk by chunk, each with a hash; a process that is
// killed loses the chunk that it had begun, and the next one goes on behind the last whole one.
// What is complete is renamed to PART.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/descriptor.h"
#include "graft/error.h"
#include "graft/shard.h"

namespace graft {

/// What a part says of itself, and all parts of one result alike, but for `shard.index`.
struct PartHead {
  std::string kind;  ///< "features", "check"
  Shard shard;
  uint64_t images = 0;   ///< of all shards together
  std::string list;      ///< list_hash() of their paths
  nlohmann::json about;  ///< the options that decide the result
};

/// Of what is in a part's file, one image.
struct PartRecord {
  uint64_t image = 0;  ///< its place in the list of all
  std::string_view path;
  std::string_view content;
};

/// Another process is writing the part.
class PartTaken : public Error {
 public:
  using Error::Error;
};

/// Identifies a list of paths and its order.
std::string list_hash(std::span<const std::filesystem::path> paths);

/// The name of a part in a folder: "features-03-of-12.part".
std::filesystem::path part_path(const std::filesystem::path& folder, const std::string& kind,
                                const Shard& shard);

/// Writes a part, or goes on with one. Not thread-safe.
class PartWriter {
 public:
  /// Calls `seen` for each record that an earlier process left, in their order. What is there of
  /// other options or another list is an Error(usage), or with `replace` removed. Throws
  /// PartTaken where another process is at it, and Error(io). `on_note` gets a line about damage
  /// that is being repaired.
  PartWriter(std::filesystem::path path, const PartHead& head, bool replace,
             const std::function<void(const PartRecord&)>& seen,
             const std::function<void(const std::string&)>& on_note);

  /// All is there already, under its name: nothing can be added.
  [[nodiscard]] bool complete() const { return complete_; }
  /// Images in ascending order.
  void add(const PartRecord& record);
  /// What was added so far outlives the process.
  void flush();
  /// Gives the file its name.
  void commit();

 private:
  enum class Finished { absent, whole, replaceable };

  void open();
  Finished look_at_finished(const PartHead& head, bool replace,
                            const std::function<void(const std::string&)>& on_note);
  void read_back(const std::filesystem::path& file, const PartHead& head, bool replace,
                 const std::function<void(const PartRecord&)>& seen);
  void write_chunk();
  void write(std::string_view bytes);

  std::filesystem::path path_;
  std::filesystem::path unfinished_;
  Descriptor file_;
  uint64_t seed_ = 0;  // of the chunks' hashes: the head's
  uint64_t end_ = 0;   // of the last whole chunk
  uint64_t records_ = 0;
  uint32_t waiting_records_ = 0;
  std::string waiting_;
  bool complete_ = false;
};

/// Reads a part's records in their order. The file is open only while a chunk is read, so that
/// thousands of parts need no more descriptors than one.
class PartReader {
 public:
  /// Throws Error(input) for a file that is no part, Error(io).
  explicit PartReader(std::filesystem::path path);

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  [[nodiscard]] const PartHead& head() const { return head_; }
  /// The next record, whose texts live until the next call; false behind the last one. Throws
  /// Error(input) where the file is damaged or cut short.
  bool next(PartRecord& record);
  /// Where the last whole chunk that was read ends.
  [[nodiscard]] uint64_t offset() const { return offset_; }
  /// The file has its end mark, which was reached.
  [[nodiscard]] bool ended() const { return ended_; }
  [[nodiscard]] uint64_t seed() const { return seed_; }
  [[nodiscard]] uint64_t records() const { return records_; }

 private:
  [[noreturn]] void fail_damaged() const;
  [[noreturn]] void fail_foreign() const;
  bool read_chunk();

  std::filesystem::path path_;
  PartHead head_;
  uint64_t seed_ = 0;
  uint64_t offset_ = 0;
  uint64_t records_ = 0;  // of whole chunks
  uint32_t left_ = 0;     // records of this chunk
  std::string chunk_;
  std::string_view rest_;  // of the chunk
  bool ended_ = false;
};

/// All parts of one result.
class Parts {
 public:
  /// `given`: parts, or folders of them, from which those of that kind are taken. Throws
  /// Error(input) where they are not all shards of one result: one is missing or there twice, or
  /// they are of other options, or of another list of images.
  Parts(std::span<const std::filesystem::path> given, const std::string& kind);

  [[nodiscard]] const PartHead& head() const { return parts_.front().head(); }
  /// Calls `sink` for each image of the list, in its order. Throws Error(input) where one is there
  /// twice or not at all, or a part is damaged.
  void read(const std::function<void(const PartRecord&)>& sink);

 private:
  std::vector<PartReader> parts_;  // by shard
};

}  // namespace graft
