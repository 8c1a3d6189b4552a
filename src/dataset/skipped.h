// Images that take no part: how many are too many, and telling which.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "dataset/dataset.h"

namespace graft {

/// The share of images that may be skipped where the user allows no other.
inline constexpr double kMaxSkipped = 0.01;

/// Samples whose file is not there go over to dataset.skipped.
void leave_out_missing(Dataset& dataset);

/// "3 of 3,036 images skipped (0.1 %)", the first five, and where the rest are listed, a line each.
/// `list` is the file with all of them, or empty.
std::vector<std::string> skipped_summary(std::span<const SkippedImage> skipped, size_t images,
                                         const std::filesystem::path& list);

/// `message` is the error's, which may begin with the path.
SkippedImage skipped_image(const Sample& sample, const std::string& label,
                           const std::string& message);

/// Rows of path,label,split,why.
std::string skipped_csv(std::span<const SkippedImage> skipped);

/// Throws Error(input) if more than that share of `images` (those that were skipped included) is
/// skipped. `what` begins the message; `advice` is what else can be done.
void require_few_skipped(std::span<const SkippedImage> skipped, size_t images, double max_share,
                         const std::string& what, const std::string& advice);

/// Classes that have no sample of the split. `left_out[i]`: sample i does not count.
std::vector<std::string> classes_without(const Dataset& dataset, Split split,
                                         const std::vector<bool>& left_out);

}  // namespace graft
