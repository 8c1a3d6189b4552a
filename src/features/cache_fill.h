// What of a source's features is in the cache, and the making of what is not, in pieces: for
// processes that share out the work.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "features/feature_set.h"
#include "features/prefix_features.h"
#include "features/sample_source.h"

namespace graft {

/// The features of every view of every image of a source, one behind the other, as entries of the
/// cache: the same ones in all processes that have the same job. A cache that fails counts as none.
/// Not thread-safe. The job, which has a prefix and views that are drawn once, must outlive it.
class CacheFill {
 public:
  explicit CacheFill(const SourceJob& job);

  [[nodiscard]] size_t size() const { return hashes_.size() * static_cast<size_t>(views_); }
  /// Floats of one entry.
  [[nodiscard]] size_t elements() const { return elements_; }

  enum class State : uint8_t {
    there,
    missing,  ///< and to be stored
    none,     ///< of an image that cannot be read, or without a cache
  };
  /// Looks anew: other processes may have stored some.
  std::vector<State> look();

  /// Whether features behind an earlier layer are there, from which some might be continued.
  [[nodiscard]] bool has_earlier() const;
  /// Stores those of these entries that can be continued from there.
  void continue_earlier(std::span<const size_t> entries);
  /// Computes and stores these entries, which all processes must name alike: the blocks of a view
  /// that `next_block(view)` gives to this process (ImageJob::next_block).
  void compute(std::span<const size_t> entries,
               const std::function<uint64_t(int view)>& next_block);

  /// An entry's values as they are stored; false: it is not there any more.
  bool read(size_t entry, FeatureSet::Values& out);
  struct Received {
    size_t entry = 0;
    FeatureSet::Values values;
  };
  /// Stores what another process has sent.
  void write(std::vector<Received> received);

 private:
  void each_view(std::span<const size_t> entries, StoreStep step,
                 const std::function<uint64_t(int view)>& next_block);
  void with_cache(const std::function<void()>& body);
  [[nodiscard]] std::string key(size_t entry) const;

  const SourceJob& job_;
  PrefixJob prefix_;
  int views_;
  std::vector<std::string> hashes_;
  std::string set_;
  size_t elements_ = 0;
  bool used_ = false;  // the set, by write()
};

}  // namespace graft
