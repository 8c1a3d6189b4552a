// Labelled images on disk: folders of class folders or a CSV manifest, and their split.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace graft {

enum class Split { unassigned, train, validation, test };
std::string_view to_string(Split split);

struct Sample {
  std::filesystem::path path;
  int label = 0;  ///< index into Dataset::classes
  Split split = Split::unassigned;
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
  std::vector<std::string> classes;   ///< Unicode NFC, sorted by bytes; the label is the index
  std::vector<Sample> samples;        ///< sorted by path
  std::vector<SkippedImage> skipped;  ///< known before anything is decoded
  std::string understood;             ///< how the folder or file was read, in a line
  std::vector<std::string> notes;     ///< what was passed over and why, a line each

  [[nodiscard]] std::vector<size_t> of(Split split) const;
  [[nodiscard]] bool has(Split split) const;
};

/// Opens DATA: a folder of class folders; a folder of splits (train/, val/, test/ and names like
/// them) of class folders; a CSV manifest. docs/data.md has the rules. Only the folder is read, not
/// the images. Throws Error(input) that says what was found and what was expected.
Dataset open_dataset(const std::filesystem::path& data);

/// Adds the images of another folder as one split (--val and --test, which `option` names). Of
/// a folder that has splits itself only the one that fits is taken. Classes are joined by name;
/// a class that `dataset` does not have is an error.
void add_split(Dataset& dataset, const std::filesystem::path& folder, Split split,
               std::string_view option);

/// Moves a seeded, stratified share of the training (or unassigned) samples to `to`, the rest to
/// train. Files with identical bytes stay on one side. Of every class at least one sample goes to
/// each side, so a class of one file (or one group of identical files) is an error.
void split_off(Dataset& dataset, double fraction, uint64_t seed, Split to);

/// Writes path,label,split in the order of the samples. `excluded` rows and
/// skipped images get the split "excluded".
void write_split(const Dataset& dataset, const std::vector<size_t>& excluded,
                 const std::filesystem::path& file);

/// The class table that train prints first.
std::string class_table(const Dataset& dataset);

/// Images named by the user: files as they are, folders walked (sorted), by extension.
std::vector<std::filesystem::path> list_images(const std::filesystem::path& path);

/// True for the extensions that folders are searched for; content decides the decoder later.
bool has_image_extension(const std::filesystem::path& path);

}  // namespace graft
