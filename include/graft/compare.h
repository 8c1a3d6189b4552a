// Training runs side by side.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#pragma GCC visibility push(default)
namespace graft {

/// Curves, figures, and a test of whether two runs differ: McNemar's, exact, on the images that
/// both classified (McNemar, 1947).
struct Comparison {
  std::string text;  ///< for reading, in 80 columns where names are short
  std::string json;  ///< a document
  std::string page;  ///< self-contained HTML
};

/// Compares two run folders or more. Throws Error(usage) for fewer, or one named twice,
/// Error(input) where one is none, or was made before predictions were kept.
Comparison compare_runs(const std::vector<std::filesystem::path>& folders);

}  // namespace graft
#pragma GCC visibility pop
