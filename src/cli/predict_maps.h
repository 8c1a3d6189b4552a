// The sheets of `graft predict --explain`, and the list that says what each is of.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "graft/explain.h"

namespace graft::cli {

/// Writes DIR/<name>.png for each image, numbered where names repeat, and DIR/index.csv.
class MapWriter {
 public:
  /// Throws Error(usage) where a file that is no such sheet, or one of the images, would be
  /// replaced.
  MapWriter(const std::string& folder, bool force, const Explainer& explainer,
            std::span<const std::filesystem::path> paths);

  /// Returns why the sheet cannot be written; empty where it is.
  std::string write(size_t index, const ActivationMap& map, const Image& image);
  /// Writes the list, with the rows of earlier sheets that are still there. Returns its name.
  std::filesystem::path finish();

 private:
  void refuse_inputs_as_targets() const;

  std::filesystem::path folder_;
  const Explainer& explainer_;
  std::span<const std::filesystem::path> paths_;
  std::vector<std::string> names_;
  std::string rows_;
  std::vector<bool> written_;
};

}  // namespace graft::cli
