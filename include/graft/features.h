// Activations of a pretrained backbone, and what of them is kept between runs.
//
//   graft::FeatureOptions options;
//   options.model.backbone = "vgg16";
//   options.pooling = graft::Pooling::gap;
//   graft::FeatureExtractor extractor(options);
//   const std::vector<std::filesystem::path> images = graft::list_images("photos/");
//   extractor.run(images, sink, on_error);
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "graft/context.h"
#include "graft/dataset.h"
#include "graft/device.h"
#include "graft/group.h"
#include "graft/image.h"
#include "graft/precision.h"
#include "graft/recipe.h"
#include "graft/shard.h"

#pragma GCC visibility push(default)
namespace graft {

/// What becomes of maps.
enum class Pooling {
  none,     ///< (C, H, W)
  gap,      ///< global average pooling: (C)
  flatten,  ///< (C·H·W)
};

struct FeatureOptions {
  /// Backbone, weights, cut and input size; the rest does not matter.
  Recipe::Model model;
  /// Up to the logits of the weights' own classes where `model.until` says nothing.
  bool include_top = false;
  Pooling pooling = Pooling::none;
  int batch_size = 16;
  uint64_t seed = 0;            ///< of random weights
  std::filesystem::path cache;  ///< of all of Graft's caches; empty: $XDG_CACHE_HOME/graft
  /// Error(usage) for bf16 on a processor without it.
  Precision precision = Precision::fp32;
  /// That computes, as many images at once as it needs; null: the processor.
  std::shared_ptr<const ComputeDevice> device = nullptr;
};

/// Throws Error(usage) for what contradicts itself, before any weights are looked for.
void check_features(const FeatureOptions& options);

/// Not thread-safe.
class FeatureExtractor {
 public:
  /// Loads the weights, downloads them where it must. Throws Error(usage) for what contradicts
  /// itself, else as reading weights does.
  explicit FeatureExtractor(const FeatureOptions& options, const RunContext& context = {});
  ~FeatureExtractor();
  FeatureExtractor(FeatureExtractor&&) noexcept;
  FeatureExtractor& operator=(FeatureExtractor&&) noexcept;

  /// Of one image's features: (C, H, W) or (C).
  [[nodiscard]] const std::vector<int64_t>& shape() const;
  /// The layer that gives them.
  [[nodiscard]] const std::string& layer() const;
  /// That they are computed with: fp32 or bf16.
  [[nodiscard]] Precision precision() const;
  /// What decides an image's features to the bit, a JSON object: backbone, layer, input, a hash of
  /// weights and preprocessing, …
  [[nodiscard]] const std::string& about() const;

  /// Calls `sink(i, values)` for each image, after ReLU, or `on_error(i, message)` for one that
  /// cannot be read, in the order of the paths, from the calling thread. Throws Error(input) where
  /// values are not finite.
  void run(std::span<const std::filesystem::path> images,
           const std::function<void(size_t, std::span<const float>)>& sink,
           const std::function<void(size_t, const std::string&)>& on_error);
  /// The same of images in memory. Throws Error(usage) for one that is none (check_image).
  void run(std::span<const Image> images,
           const std::function<void(size_t, std::span<const float>)>& sink);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Writes the features of images, float32, as the name of the file says: .npy (NumPy, format
/// version 1.0), .npz (arrays `features` and `paths`) or .csv (columns path, f0, f1, … with the
/// maps' values in C, H, W order). `list`, where it is not empty: CSV with a line "row,path" for
/// each row. All appear complete or not at all. Returns the number of rows; throws Error(usage) for
/// another suffix, Error(input) where there would be no rows.
size_t write_features(FeatureExtractor& extractor, std::span<const std::filesystem::path> images,
                      const std::filesystem::path& file, const std::filesystem::path& list,
                      const std::function<void(size_t, const std::string&)>& on_error);
/// How such a list begins.
inline constexpr const char* kFeatureListHeader = "row,path\n";

/// What one worker of several made of its part of the images.
struct FeatureShard {
  std::filesystem::path part;  ///< the file
  size_t images = 0;
  size_t skipped = 0;  ///< could not be read
  size_t earlier = 0;  ///< images that an earlier process had done already
};
/// Computes a shard's images (shard_members) into a file in `folder`, whose name says which shard
/// it is, and goes on where a process that was killed has stopped. `on_error(i, message)` as for
/// write_features(); merge_features() tells them again. `replace`: what is there of other options
/// or another list goes. Throws Error(usage) for such files without it, Error(input) where another
/// process is at this shard.
FeatureShard write_feature_shard(FeatureExtractor& extractor,
                                 std::span<const std::filesystem::path> images, const Shard& shard,
                                 const std::filesystem::path& folder,
                                 const std::function<void(size_t, const std::string&)>& on_error,
                                 bool replace = false, const RunContext& context = {});

struct MergedFeatures {
  size_t rows = 0;
  std::vector<int64_t> shape;  ///< of one image's
  std::string layer;
  Precision precision = Precision::fp32;
};
/// Joins the files of all shards, which are named one by one or by their folders, into what
/// write_features() would have written. `on_error(path, message)` for images that could not be
/// read. Throws Error(input), before `file` is there, where a shard is missing, there twice,
/// damaged, or of other options or images than the rest.
MergedFeatures merge_features(
    std::span<const std::filesystem::path> parts, const std::filesystem::path& file,
    const std::filesystem::path& list,
    const std::function<void(const std::filesystem::path&, const std::string&)>& on_error,
    const RunContext& context = {});

/// As one process of a group (group_rank()), all of which call it alike: the images are cut into
/// shards in `folder`, which all can write to, and whoever is done takes the next; what processes
/// of an earlier start have left there is gone on with. Rank 0 then joins them, as
/// merge_features(), removes the folder, and is returned what it made; the others nothing. Throws
/// Error(io) that names processes which do not come within 25 s, Error(input) in one whose images
/// or options are not rank 0's, and as the functions above.
std::optional<MergedFeatures> write_features_in_group(
    FeatureExtractor& extractor, std::span<const std::filesystem::path> images,
    const GroupPlace& place, const std::filesystem::path& folder, const std::filesystem::path& file,
    const std::filesystem::path& list,
    const std::function<void(const std::filesystem::path&, const std::string&)>& on_error,
    bool replace = false, const RunContext& context = {});

/// Features of a frozen prefix on disk, which training runs share.
struct CachedFeatures {
  std::string id;
  std::string about;  ///< what they are of, a JSON object: backbone, until, input, dtype, …
  uint64_t images = 0;
  uint64_t bytes = 0;
  int64_t used = 0;  ///< seconds since 1970
};

/// What is in a folder of Graft's caches (empty: $XDG_CACHE_HOME/graft), the features used last
/// first. Makes nothing. `on_problem` gets a line for each of those that cannot be read.
std::vector<CachedFeatures> cached_features(
    const std::filesystem::path& cache,
    const std::function<void(const std::string&)>& on_problem = nullptr);
/// Removes them all, whatever state they are in, and returns the bytes that this frees. A process
/// that uses them goes on with what it has open. Throws Error(io) if something cannot be removed.
uint64_t clear_cached_features(const std::filesystem::path& cache);
/// Where they are: a folder of a folder of caches.
std::filesystem::path feature_cache_folder(const std::filesystem::path& cache = {});

}  // namespace graft
#pragma GCC visibility pop
