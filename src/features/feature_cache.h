// Features on disk, shared by runs: sets of files in Graft's cache folder.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "features/feature_set.h"
#include "graft/context.h"
#include "graft/features.h"
#include "graft/recipe.h"

namespace graft {

/// Sets of features, one for everything that decides an image's features but the image itself
/// (see PrefixFeatures); within a set one entry for each image, under the hash of its file.
///
/// A process that is killed, or a full disk, leaves what was there before. Several processes may
/// use one cache. Entries that are damaged count as absent, with one warning. When the cache
/// would outgrow its limit, the set that was used least recently goes, but never the one being
/// written. Methods may be called from any thread. All throw Error(io) with the file's name.
class FeatureCache {
 public:
  FeatureCache(const std::filesystem::path& folder, uint64_t limit_bytes, RunContext context = {});

  struct Set {
    std::string id;
    nlohmann::json about;  ///< what use_set was given
    uint64_t images = 0;
    uint64_t bytes = 0;
    int64_t used = 0;  ///< seconds since 1970
  };
  /// Most recently used first. Of those that cannot be read, and what has the name of a set's file
  /// without being one, `on_problem` gets a line each.
  [[nodiscard]] std::vector<Set> sets(
      const std::function<void(const std::string&)>& on_problem = nullptr);
  [[nodiscard]] bool has_set(const std::string& id);
  /// Makes the set if there is none, and marks it as used now. `id`: letters and digits.
  void use_set(const std::string& id, const nlohmann::json& about);

  [[nodiscard]] bool contains(const std::string& set, const std::string& image);
  /// Fills `out`; false if there is no such entry, or one of another size.
  bool read(const std::string& set, const std::string& image, std::span<float> out);

  struct Entry {
    std::string image;
    std::vector<float> values;
  };
  /// Stores entries in a set that use_set was called with. False if they do not fit.
  bool write(const std::string& set, std::span<const Entry> entries, FeatureType dtype);

  /// An entry as it is stored, for another cache; false as read().
  bool read_stored(const std::string& set, const std::string& image, size_t elements,
                   FeatureSet::Values& out);
  /// Stores entries of another cache, as write() does.
  bool write_stored(const std::string& set, std::span<const FeatureSet::Entry> entries);

  /// What `values` become by being stored and read back.
  static void round(std::span<float> values, FeatureType dtype);

  /// Whether this is to be told: true once for each text.
  bool is_news(const std::string& text);

  /// Removes all sets in a folder, whatever state they are in and whatever else bears their names,
  /// and returns the bytes that this frees. Throws Error(io) if something cannot be removed.
  static uint64_t clear(const std::filesystem::path& folder);
  /// Removes the files of an earlier format, and returns the bytes that this frees.
  static uint64_t remove_earlier_format(const std::filesystem::path& folder);
  /// Whether there are such files.
  static bool has_earlier_format(const std::filesystem::path& folder);

 private:
  FeatureSet* find(const std::string& id);
  void report_damage(const FeatureSet& set);
  bool make_room(const std::string& set, uint64_t bytes);

  std::filesystem::path folder_;
  uint64_t limit_;
  RunContext context_;
  std::mutex mutex_;  // guards what follows
  std::map<std::string, FeatureSet> open_;
  FeatureSet::Values buffer_;
  bool reported_ = false;
  std::set<std::string> told_;
};

}  // namespace graft
