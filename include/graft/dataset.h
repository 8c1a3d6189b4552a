// Labelled images on disk: folders of class folders or a CSV manifest, and their split.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "graft/context.h"

#pragma GCC visibility push(default)
namespace graft {

enum class Split { unassigned, train, validation, test };
std::string_view to_string(Split split);

struct Sample {
  std::filesystem::path path;
  int label = 0;  ///< index into Dataset::classes
  Split split = Split::unassigned;
  /// What identifies the file's bytes, 32 hexadecimal digits; empty until plan() has read them, and
  /// where they cannot be read.
  std::string content{};
  bool reviewed = false;  ///< a person has decided on its label: see apply_corrections()
};

/// An image that takes no part: missing, unreadable, or of a format that is not read.
struct SkippedImage {
  std::filesystem::path path;
  std::string label;
  Split split = Split::unassigned;
  std::string why;
};

struct Dataset {
  std::filesystem::path root;
  std::vector<std::string> classes;        ///< Unicode NFC, sorted by bytes; the label is the index
  std::vector<Sample> samples;             ///< sorted by path
  std::vector<SkippedImage> skipped;       ///< known before anything is decoded
  std::string understood;                  ///< how the folder or file was read, in a line
  std::vector<std::string> notes;          ///< what was passed over and why, a line each
  std::vector<std::string> empty_classes;  ///< folders of classes without an image: a line each
  /// Files of kinds that are not read, videos too: class → suffix (".cr2") → count.
  std::map<std::string, std::map<std::string, size_t>> unread;
  std::filesystem::path validation;  ///< where those images are, if in a folder of their own
  std::filesystem::path test;
  std::filesystem::path corrections;  ///< the review that apply_corrections() took; empty: none
  std::string decisions;              ///< its rows with a decision, as a review's text

  [[nodiscard]] std::vector<size_t> of(Split split) const;
  [[nodiscard]] bool has(Split split) const;
};

/// Opens DATA: a folder of class folders; a folder of splits (train/, val/, test/ and names like
/// them) of class folders; a zip or tar archive of such a folder; tar shards with labels beside the
/// images, by a pattern, a list or their folder; a list of images in class folders; a CSV manifest.
/// docs/data.md has the rules. Only the folder is read, not the images; an archive is read in
/// place, and samples' paths lead into it. Throws Error(input) that says what was found and what
/// was expected. Of a compressed tar the context is told how far decompressing it has come; it may
/// stop that.
Dataset open_dataset(const std::filesystem::path& data, const RunContext& context = {});
/// The same with validation and test images from folders of their own; empty: none.
Dataset open_dataset(const std::filesystem::path& data, const std::filesystem::path& validation,
                     const std::filesystem::path& test, const RunContext& context = {});

/// The class table that train prints first.
std::string class_table(const Dataset& dataset);

/// Images named by the user: files as they are; folders, archives and folders of tar shards walked
/// (sorted), by extension; what a pattern ("shard-{0000..0999}.tar") or a list ("@list.txt", or a
/// text file of paths) names. `unread` says what else a folder
/// has: "3 files of kinds that are not read (1 .cr2, 2 .mov)", or nothing.
std::vector<std::filesystem::path> list_images(const std::filesystem::path& path,
                                               const RunContext& context = {},
                                               std::string* unread = nullptr);

/// What compressed tars were decompressed into, in $XDG_CACHE_HOME/graft/archives.
struct DecompressedArchives {
  std::filesystem::path folder;
  size_t files = 0;
  uint64_t bytes = 0;
};
DecompressedArchives decompressed_archives();
/// Removes them, and returns the bytes that this frees; what is in use can be read to its end.
/// Throws Error(io) if one cannot be removed.
uint64_t clear_decompressed_archives();

}  // namespace graft
#pragma GCC visibility pop
