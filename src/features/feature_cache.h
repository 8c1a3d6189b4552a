// Features on disk, shared by runs: an LMDB environment in Graft's cache folder.
#pragma once

#include <cstdint>
#include <filesystem>
#include <mutex>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <utility>
#include <vector>

struct MDB_env;
struct MDB_txn;

namespace graft {

/// How features are stored. Values that a half cannot hold are stored as float32 either way.
enum class CacheDtype { fp16, fp32 };

/// Sets of features, one for everything that decides an image's features but the image itself
/// (see PrefixFeatures); within a set one entry for each image, under the hash of its file.
///
/// Every change is a transaction: a process that is killed, or a full disk, leaves the state before
/// it. Several processes may use one cache. When it would outgrow its limit, the set that was used
/// least recently goes, but never the one being written. Methods may be called from any thread.
/// All throw Error(io) with the folder's name.
class FeatureCache {
 public:
  FeatureCache(const std::filesystem::path& folder, uint64_t limit_bytes);
  ~FeatureCache();
  FeatureCache(const FeatureCache&) = delete;
  FeatureCache& operator=(const FeatureCache&) = delete;

  struct Set {
    std::string id;
    nlohmann::json about;  ///< what use_set was given
    uint64_t images = 0;
    uint64_t bytes = 0;
    int64_t used = 0;  ///< seconds since 1970
  };
  /// Most recently used first.
  [[nodiscard]] std::vector<Set> sets();
  [[nodiscard]] bool has_set(const std::string& id);
  /// Makes the set if there is none, and marks it as used now.
  void use_set(const std::string& id, const nlohmann::json& about);

  [[nodiscard]] bool contains(const std::string& set, const std::string& image);
  /// Fills `out`; false if there is no such entry, or one of another size.
  bool read(const std::string& set, const std::string& image, std::span<float> out);

  struct Entry {
    std::string image;
    std::vector<float> values;
  };
  /// Stores entries in one transaction. False if they do not fit.
  bool write(const std::string& set, std::span<const Entry> entries, CacheDtype dtype);

  /// What `values` become by being stored and read back.
  static void round(std::span<float> values, CacheDtype dtype);

 private:
  [[nodiscard]] MDB_txn* begin(bool write);
  void check(int status) const;
  void remove_set(MDB_txn* txn, const std::string& id);
  bool make_room(const std::string& set, uint64_t bytes);

  std::filesystem::path folder_;
  uint64_t limit_;
  MDB_env* env_ = nullptr;
  unsigned sets_ = 0;     // id → JSON
  unsigned entries_ = 0;  // id + image → header, values
  std::mutex mutex_;
};

}  // namespace graft
