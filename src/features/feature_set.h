// One set of the feature cache on disk: an index of records of one size, and a file of values.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/descriptor.h"

namespace graft {

/// The files ID.index and ID.values. Whatever is in them, nothing here crashes, hangs or gives a
/// value that was not stored: records and values carry hashes, and what does not agree with its
/// hash is taken for absent. docs/formats.md has the layout.
///
/// Several processes may read and append; a lock on the index, held for one append, keeps writers
/// apart. A process that is killed leaves at most values that no record mentions. Not thread-safe.
class FeatureSet {
 public:
  /// `id`: letters, digits, '-' and '_'. Opens nothing.
  FeatureSet(const std::filesystem::path& folder, std::string id);

  /// Opens the set if it is there; false if not. Throws Error(io).
  bool open();
  /// Opens or makes the set, and marks it as used now. An index that is none any more, and what is
  /// no plain file, is put aside, see `quarantined`. Throws Error(io).
  void use(const nlohmann::json& about);

  [[nodiscard]] const std::string& id() const { return id_; }
  [[nodiscard]] const nlohmann::json& about() const { return about_; }
  [[nodiscard]] uint64_t images() const { return records_.size(); }

  [[nodiscard]] bool contains(const std::string& image) const;

  struct Values {
    uint32_t bits = 0;  ///< of one value
    uint32_t elements = 0;
    std::string bytes;
  };
  /// False if there is no such entry, if it has another number of elements, or if it is damaged: it
  /// is forgotten then, so that it can be stored again. Leaves `out` filled with something.
  bool read(const std::string& image, uint32_t elements, Values& out);

  struct Entry {
    std::string image;
    Values values;
  };
  /// Stores those entries that are not there yet, in a set that use() was called for. On a failure
  /// (a full disk, a limit) nothing is stored, and Error(io) says why.
  void append(std::span<const Entry> entries);
  /// What an entry takes.
  static uint64_t size_on_disk(const Values& values);

  /// Records or values that did not agree with their hashes, so far.
  [[nodiscard]] uint64_t damaged() const { return damaged_; }
  /// Where a damaged index was put by use() or append(); empty: nowhere.
  [[nodiscard]] const std::filesystem::path& quarantined() const { return quarantined_; }

  /// Removes a set's files, whoever may have them open. Returns the bytes that this frees.
  static uint64_t remove(const std::filesystem::path& folder, const std::string& id);

 private:
  struct Key {
    uint64_t low = 0;
    uint64_t high = 0;
    bool operator==(const Key&) const = default;
  };
  struct KeyHash {
    size_t operator()(const Key& key) const { return key.low; }
  };
  struct Place {
    uint64_t offset = 0;
    uint64_t hash = 0;
    uint32_t elements = 0;
    uint32_t bits = 0;
  };
  struct Record;

  [[nodiscard]] static Key key_of(const std::string& image);
  [[nodiscard]] Record make_record(const Key& key, const Place& place) const;
  [[nodiscard]] bool open_files(bool create);
  [[nodiscard]] static bool is_odd(const std::filesystem::path& path);
  [[nodiscard]] bool is_current() const;
  [[nodiscard]] bool read_head();
  void write_head();
  void read_new_records();
  class WriteLock;
  [[nodiscard]] WriteLock lock_for_writing();
  void put_aside();
  void forget();
  [[noreturn]] void fail_io(const std::filesystem::path& path, int error) const;

  std::filesystem::path index_path_;
  std::filesystem::path values_path_;
  std::string id_;
  uint64_t seed_;  // of the records' hashes, so that no other set's records are taken for ours
  Descriptor index_;
  Descriptor values_;
  nlohmann::json about_ = nlohmann::json::object();
  nlohmann::json wanted_ = nlohmann::json::object();  // what use() was given
  std::unordered_map<Key, Place, KeyHash> records_;
  uint64_t seen_ = 0;  // bytes of the index that are in records_
  uint64_t end_ = 0;   // of the values that records mention
  uint64_t damaged_ = 0;
  int why_read_only_ = 0;  // the system's error; 0: it may be written
  std::filesystem::path quarantined_;
};

}  // namespace graft
