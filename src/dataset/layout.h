// What a folder of images means: class folders, or splits of class folders.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "dataset/dataset.h"
#include "graft/context.h"

namespace graft {

/// An image with its label as it is written, before classes are numbered.
struct LabelledImage {
  std::filesystem::path path;
  std::string label;
  Split split = Split::unassigned;
};

struct Layout {
  std::filesystem::path root;  ///< behind wrapper folders
  std::vector<LabelledImage> images;
  std::vector<SkippedImage> unread;  ///< of formats that are not read
  std::vector<std::string> empty;    ///< class folders without an image: a line each
  /// Files that are not read, videos too: class → suffix → count.
  std::map<std::string, std::map<std::string, size_t>> unread_counts;
  std::string understood;  ///< "train/ and test/ splits", "one folder per class"
  std::vector<std::string> notes;
};

/// " (noted: DATA/.net: 2 images in a hidden folder …)" where something was passed over, else
/// empty: for messages about what is missing.
std::string noted(const std::vector<std::string>& notes);

inline constexpr std::string_view kExpectedLayout =
    "expected a folder of class folders (DATA/cat/*.jpg, DATA/dog/*.jpg), or one that holds train/ "
    "(and val/, test/) with a folder per class in each, a zip or tar of one, tar shards "
    "('photos-{0000..0007}.tar', quoted), or a CSV manifest of path,label";

/// Reads the folder and decides by the whole image: it is one of splits only where everything
/// beside them is a split too and they share class folders. Throws Error(input) that says what was
/// found and what was expected where neither reading is beyond doubt.
Layout read_layout(const std::filesystem::path& data, const RunContext& context = {});

}  // namespace graft
