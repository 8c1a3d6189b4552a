// Where training reads its inputs from: features in memory, features in the cache, or images,
// through the frozen prefix where there is one.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "features/prefix_features.h"
#include "graft/image.h"
#include "graft/network.h"
#include "image/augment.h"

namespace graft {

struct SourceJob {
  const Network& network;
  Preprocessing preprocessing;
  std::span<const std::filesystem::path> paths{};
  /// content_hashes() of the paths: what has another content by now counts as unreadable, and what
  /// the cache has of the content is good without its file. Empty: taken when the source is made.
  std::span<const std::string> hashes{};
  /// The frozen prefix; null: inputs are the network's own.
  const PrefixJob* prefix = nullptr;
  /// Features are kept in memory; else they are read from the cache, or computed in every epoch.
  bool keep_features = true;
  Augmentation augmentation{};
  /// Different views of each image, drawn once; 0: new ones in every epoch.
  int views = 1;
  uint64_t seed = 0;
  std::string label{};
  RunContext context{};
};

/// The reading of a source's images, as they are.
ImageJob image_job(const SourceJob& job, int batch);

/// Rows of inputs. An epoch shows one view of each image: in epoch e the view (e + something
/// that depends on the image) modulo `views`, so that as many epochs show all of them.
class SampleSource {
 public:
  virtual ~SampleSource() = default;
  /// Of the paths given, those that could be read, in their order; row r is image usable()[r].
  [[nodiscard]] const std::vector<size_t>& usable() const { return usable_; }
  /// Writes the inputs of some rows one behind the other. Results depend on the rows and the epoch
  /// alone. Rows whose file can no longer be read are left out, so that less is written, and their
  /// places in `rows` are returned. Not thread-safe. Throws Error.
  virtual std::vector<size_t> fill(std::span<const int64_t> rows, int epoch, float* out) = 0;

 protected:
  std::vector<size_t> usable_;
};

/// Reads the images and computes what stays the same in all epochs. Images that cannot be
/// decoded are passed to `on_error` (once each) and left out.
std::unique_ptr<SampleSource> make_sample_source(
    const SourceJob& job, const std::function<void(size_t, const std::string&)>& on_error);

}  // namespace graft
