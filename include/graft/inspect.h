// What is odd about a dataset: files that cannot be read, copies, labels that contradict each
// other.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graft/context.h"
#include "graft/dataset.h"
#include "graft/shard.h"

#pragma GCC visibility push(default)
namespace graft {

/// Something about one image.
struct Finding {
  size_t sample = 0;  ///< index into Dataset::samples
  std::string why;
};

/// Indices of samples that belong together, in the order of the samples; at least two.
using SampleGroup = std::vector<size_t>;

struct Inspection {
  std::vector<Finding> corrupt;       ///< cannot be decoded, whole or in part
  std::vector<Finding> unsupported;   ///< sound, as far as known, but of a kind that is not read
  std::vector<Finding> nearly_black;  ///< 16 bits a channel, of which only the lower ones are used
  std::vector<Finding> wrong_extension;  ///< the content is of another format than the name says
  std::vector<Finding> tiny;             ///< a side under 32 pixels, the least that VGG can see
  std::vector<Finding> extreme_aspect;   ///< a side over four times the other
  std::vector<Finding> greyscale;        ///< no colour in any pixel, or stored as grey
  std::vector<Finding> cmyk;             ///< stored in printing colours
  std::vector<Finding> animated;         ///< more than one frame
  std::vector<SampleGroup> duplicates;   ///< identical files
  std::vector<SampleGroup> conflicting_labels;  ///< of the duplicates: in more than one class
  std::vector<SampleGroup> train_test_leaks;    ///< of the duplicates: in training and test data
  std::vector<SampleGroup> train_val_leaks;     ///< likewise with validation data
  /// Images that look the same without being the same file; of identical files the first stands
  /// for all.
  std::vector<SampleGroup> near_duplicates;
  std::vector<size_t> class_counts;
  /// Images of the largest class that can be read over those of the smallest.
  double imbalance = 1;

  /// Anything at all, imbalance apart.
  [[nodiscard]] bool any() const;
};

/// The kinds of finding, once: their key in JSON, their name, and where they are. What concerns
/// training most comes first.
struct FindingKind {
  std::string_view key;
  std::string_view title;
  std::vector<Finding> Inspection::*list;
};
inline constexpr FindingKind kFindingKinds[] = {
    {"corrupt", "Unreadable or damaged", &Inspection::corrupt},
    {"unsupported", "Of a kind that is not read", &Inspection::unsupported},
    {"nearly_black", "Read as nearly black", &Inspection::nearly_black},
    {"wrong_extension", "Extension of another format", &Inspection::wrong_extension},
    {"tiny", "Tiny", &Inspection::tiny},
    {"extreme_aspect", "Extreme aspect ratio", &Inspection::extreme_aspect},
    {"cmyk", "CMYK", &Inspection::cmyk},
    {"animated", "Animated", &Inspection::animated},
    {"greyscale", "Greyscale", &Inspection::greyscale},
};
struct GroupKind {
  std::string_view key;
  std::string_view title;
  std::vector<SampleGroup> Inspection::*list;
};
inline constexpr GroupKind kGroupKinds[] = {
    {"train_test_leaks", "Identical files in training and test data",
     &Inspection::train_test_leaks},
    {"train_val_leaks", "Identical files in training and validation data",
     &Inspection::train_val_leaks},
    {"conflicting_labels", "Identical files with conflicting labels",
     &Inspection::conflicting_labels},
    {"duplicates", "Identical files", &Inspection::duplicates},
    {"near_duplicates", "Near-duplicates: look the same, other bytes",
     &Inspection::near_duplicates},
};

/// How much is read of a dataset; each holds those before it.
enum class InspectionDepth {
  copies,  ///< identical files: only files whose size another one has are read
  files,   ///< and every file's header
  pixels,  ///< and every image
};

Inspection inspect(const Dataset& dataset, InspectionDepth depth, const RunContext& context);

/// What one worker of several found in its part of a dataset's images.
struct InspectedShard {
  std::filesystem::path part;  ///< the file
  size_t images = 0;
  size_t earlier = 0;  ///< images that an earlier process had looked at already
};
/// Looks at a shard's images (shard_members of the samples' paths, to the depth of pixels), and
/// writes what it finds to a file in `folder`; goes on where a process that was killed has stopped.
/// `replace`: a file of another dataset goes. Throws as write_feature_shard() does.
InspectedShard inspect_shard(const Dataset& dataset, const Shard& shard,
                             const std::filesystem::path& folder, const RunContext& context,
                             bool replace = false);
/// What inspect() finds, to the depth of pixels, from the files of all shards, which are named one
/// by one or by their folders; reads no image. Throws Error(input) where they are not all shards of
/// this dataset.
Inspection inspect_parts(const Dataset& dataset, std::span<const std::filesystem::path> parts,
                         const RunContext& context);

/// What a recipe's `exclude` can leave out.
inline constexpr std::string_view kExclusions[] = {
    "corrupt", "duplicates", "near-duplicates", "conflicts",
    "leaks",   "tiny",       "extreme-aspect",  "greyscale"};
/// The depth that an exclusion needs.
InspectionDepth depth_of(std::string_view exclusion);

/// Samples to leave out: of duplicates and near-duplicates all but the first in each split; of
/// conflicting labels every copy; of leaks the copies in training. Throws Error(usage) for an
/// unknown word.
std::vector<size_t> excluded_samples(const Dataset& dataset, const Inspection& inspection,
                                     const std::vector<std::string>& exclusions);

struct LabelCheck;
/// Self-contained HTML: counts, and everything that was found, with thumbnails. `labels`: what
/// check_labels() found of the same dataset; null: nobody looked.
std::string data_page(const Dataset& dataset, const Inspection& found,
                      const LabelCheck* labels = nullptr);

}  // namespace graft
#pragma GCC visibility pop
