// split.csv of a run: which image was on which side.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "graft/dataset.h"
#include "graft/inspect.h"

namespace graft {

/// Writes path,label,split,content in the order of the samples. `excluded` rows and skipped images
/// get the split "excluded". A manifest, too: graft/dataset.h.
void write_split(const Dataset& dataset, const std::vector<size_t>& excluded,
                 const std::filesystem::path& file);

struct SplitRow {
  std::filesystem::path path;
  std::string label;
  Split split = Split::unassigned;  ///< unassigned: it took no part
  std::string content;              ///< Sample::content; empty in files of earlier versions
};

/// Throws Error(input) for a file that write_split() cannot have made.
std::vector<SplitRow> read_split(const std::filesystem::path& file);

/// Finds images in a split file: by their content, or where the file does not have that by their
/// path. Of two rows with one content the first that took part counts.
class KnownImages {
 public:
  explicit KnownImages(const std::vector<SplitRow>& rows);
  /// Null for an image that is not there.
  [[nodiscard]] const SplitRow* find(const Sample& sample) const;

 private:
  std::map<std::string, const SplitRow*> by_content_;
  std::map<std::filesystem::path, const SplitRow*> by_path_;  // of rows without content
};

struct TakenSplit {
  std::vector<bool> settled;  ///< samples whose split is that of the rows
  size_t taken = 0;           ///< how many they are
  size_t learned = 0;         ///< images that the data itself sets aside and the rows train on
};

/// Gives each training (or unassigned) sample that the rows know the split that it has there; so do
/// the others of its group of `together`, which go to train where its members are on both sides.
TakenSplit take_split(Dataset& dataset, const std::vector<SplitRow>& rows,
                      const std::vector<SampleGroup>& together = {});

}  // namespace graft
