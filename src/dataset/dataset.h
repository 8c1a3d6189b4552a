// Labelled pictures on disk: folders of class folders or a CSV manifest, and their split.
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

struct Dataset {
  std::filesystem::path root;
  std::vector<std::string> classes;  ///< sorted by bytes; the label is the index
  std::vector<Sample> samples;       ///< sorted by path
  std::vector<std::string> notes;    ///< what was passed over and why, a line each

  [[nodiscard]] std::vector<size_t> of(Split split) const;
  [[nodiscard]] bool has(Split split) const;
};

/// Opens DATA: a folder of class folders; a folder that holds train/ (seg_train/), and optionally
/// val/ (validation/, valid/) and test/ (seg_test/); a CSV manifest with a header naming path,
/// label and optionally split. A nested single folder of the same name is seen through, hidden
/// folders are ignored, links are followed with cycles noticed. Only the folder is read, not the
/// pictures. Throws Error(input) that says what was expected.
Dataset open_dataset(const std::filesystem::path& data);

/// Adds the pictures of another folder as one split (train's --val and --test). Classes are joined
/// by name; a class that `dataset` does not have is an error.
void add_split(Dataset& dataset, const std::filesystem::path& folder, Split split);

/// Moves a seeded, stratified share of the training (or unassigned) samples to `to`, the rest to
/// train. Files with identical bytes stay on one side. Of every class at least one sample goes to
/// each side, so a class of one file (or one group of identical files) is an error.
void split_off(Dataset& dataset, double fraction, uint64_t seed, Split to);

/// Writes path,label,split in the order of the samples. `excluded` rows get the split "excluded".
void write_split(const Dataset& dataset, const std::vector<size_t>& excluded,
                 const std::filesystem::path& file);

/// The class table that train prints first.
std::string class_table(const Dataset& dataset);

/// Pictures named by the user: files as they are, folders walked (sorted), by extension.
std::vector<std::filesystem::path> list_images(const std::filesystem::path& path);

/// True for the extensions that folders are searched for; content decides the decoder later.
bool has_image_extension(const std::filesystem::path& path);

}  // namespace graft
