// The kinds of image files: what is read, by which suffixes it goes, and how it is told by its
// bytes.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "graft/image.h"

namespace graft {

/// "JPEG", "HEIC", …
std::string_view format_name(ImageFormat format);

/// The names of all formats, as in "JPEG, PNG, …".
std::string format_names();

/// The format that files with this suffix have (".jpg", in lower case); nothing for others.
std::optional<ImageFormat> format_of_suffix(std::string_view suffix);

/// What kind of file a suffix stands for that is a picture and is not read.
struct UnreadKind {
  std::string_view what;    ///< "camera raw files", in the plural
  std::string_view advice;  ///< "develop them to JPEG"
  bool image = true;        ///< an image, which is missed where it is not read; a video is none
};
/// Null for suffixes of files that are read, and of those that are no pictures.
const UnreadKind* unread_kind(std::string_view suffix);

/// Whether a file's first bytes (24 are enough) are those of an image, read or not.
bool begins_as_image(std::span<const std::byte> bytes);

}  // namespace graft
