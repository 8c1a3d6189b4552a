#include "dataset/folders.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <set>
#include <system_error>

#include "base/file.h"
#include "dataset/dataset.h"
#include "graft/error.h"

namespace graft {
namespace {

void walk(const fs::path& folder, std::set<fs::path>& entered, std::vector<fs::path>& images,
          size_t& others) {
  std::error_code error;
  const fs::path real = fs::canonical(folder, error);
  if (error || !entered.insert(real).second) return;  // a cycle of links, or a dangling one
  for (const fs::path& entry : list_folder(folder)) {
    if (fs::is_directory(entry, error))
      walk(entry, entered, images, others);
    else if (has_image_extension(entry))
      images.push_back(entry);
    else
      ++others;
  }
}

}  // namespace

bool has_image_extension(const fs::path& path) {
  constexpr std::array<std::string_view, 6> kExtensions = {".jpg",  ".jpeg", ".jpe",
                                                           ".jfif", ".png",  ".webp"};
  std::string extension = path.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return std::find(kExtensions.begin(), kExtensions.end(), extension) != kExtensions.end();
}

std::vector<fs::path> list_folder(const fs::path& folder) {
  std::vector<fs::path> entries;
  std::error_code error;
  fs::directory_iterator at(folder, error);
  for (; !error && at != fs::directory_iterator(); at.increment(error)) {
    const std::string name = at->path().filename().string();
    // Windows' and macOS' leavings: .DS_Store and .ipynb_checkpoints are hidden, __MACOSX is not.
    if (name.front() != '.' && name != "__MACOSX") entries.push_back(at->path());
  }
  if (error)
    fail(ErrorKind::io, "{}: cannot read this folder: {}", printable(folder), error.message());
  std::sort(entries.begin(), entries.end());
  return entries;
}

std::vector<fs::path> walk_images(const fs::path& folder, size_t& others) {
  std::set<fs::path> entered;
  std::vector<fs::path> images;
  walk(folder, entered, images, others);
  std::sort(images.begin(), images.end());
  return images;
}

std::vector<fs::path> list_images(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(path, error))
    fail(ErrorKind::input, "{}: no such file or folder", printable(path));
  if (!fs::is_directory(path, error)) return {path};
  size_t others = 0;
  std::vector<fs::path> images = walk_images(path, others);
  if (images.empty())
    fail(ErrorKind::input, "{}: no .jpg, .jpeg, .png or .webp file in this folder",
         printable(path));
  return images;
}

}  // namespace graft
