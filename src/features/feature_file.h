// Rows of features as a file of the kind that its name says.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace graft {

/// Rows of one shape, in a file that commit() gives its name. Without commit() nothing is left.
class FeatureFile {
 public:
  FeatureFile() = default;
  virtual ~FeatureFile() = default;
  FeatureFile(const FeatureFile&) = delete;
  FeatureFile& operator=(const FeatureFile&) = delete;

  virtual void add(const std::filesystem::path& image, std::span<const float> row) = 0;
  virtual void commit() = 0;
};

/// .npy, .npz or .csv. Throws Error(usage) for another suffix.
std::unique_ptr<FeatureFile> make_feature_file(const std::filesystem::path& path,
                                               const std::vector<int64_t>& row_shape);

/// Such a file and the list of its rows beside it.
class FeatureTable {
 public:
  /// `list` may be empty: none is written. Throws Error(usage) where both are one file.
  FeatureTable(const std::filesystem::path& file, std::filesystem::path list,
               const std::vector<int64_t>& row_shape);
  void add(const std::filesystem::path& image, std::span<const float> row);
  /// Returns the number of rows; throws Error(input) where there are none of so many images.
  size_t commit(size_t images);

 private:
  std::unique_ptr<FeatureFile> file_;
  std::filesystem::path list_;
  std::string rows_text_;
  size_t rows_ = 0;
};

}  // namespace graft
