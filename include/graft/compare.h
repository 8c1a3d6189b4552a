// Training runs side by side.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "graft/context.h"
#include "graft/dataset.h"

#pragma GCC visibility push(default)
namespace graft {

/// Which of two runs is better, and by how much: on images that neither was trained on, with an
/// interval and a test (McNemar's, exact; McNemar, 1947), per class, and with the images on which
/// they differ; beside it curves, figures, and the options in which the runs differ.
struct Comparison {
  std::string text;  ///< for reading, in 80 columns where names are short
  std::string json;  ///< a document
  std::string page;  ///< self-contained HTML
};

/// Compares two run folders or more, each with each. Two runs that both have test images are
/// compared on those that they have in common, others on all images that neither was trained on;
/// what one of them has not classified yet is classified now. Images are told apart by their
/// content. Throws Error(usage) for fewer, or one named twice, Error(input) where one is none, or
/// was made before predictions were kept.
Comparison compare_runs(const std::vector<std::filesystem::path>& folders,
                        const RunContext& context = {});
/// The same on images of the caller's: those of the dataset's test split, else its validation
/// split, else all, but for images that one of the runs was trained on.
Comparison compare_runs(const std::vector<std::filesystem::path>& folders, const Dataset& data,
                        const RunContext& context = {});

}  // namespace graft
#pragma GCC visibility pop
