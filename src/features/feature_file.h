// Rows of features as a file of the kind that its name says.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
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

}  // namespace graft
