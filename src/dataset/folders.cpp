#include "dataset/folders.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <fstream>
#include <set>
#include <system_error>

#include "base/fail.h"
#include "base/file.h"
#include "dataset/dataset.h"

namespace graft {
namespace {

constexpr std::array<std::string_view, 6> kReadSuffixes = {".jpg",  ".jpeg", ".jpe",
                                                           ".jfif", ".png",  ".webp"};

constexpr std::array<std::string_view, 36> kUnreadSuffixes = {
    ".bmp", ".dib", ".gif", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2",
    ".j2k", ".jpx", ".jxl", ".jxr", ".ppm",  ".pgm",  ".pbm",  ".pnm",  ".pfm",
    ".tga", ".ico", ".psd", ".svg", ".cr2",  ".cr3",  ".nef",  ".arw",  ".dng",
    ".orf", ".rw2", ".raf", ".pef", ".srw",  ".exr",  ".hdr",  ".dcm",  ".xcf"};

// Beside images quite often, and never one: not worth a look inside.
constexpr std::array<std::string_view, 12> kTextSuffixes = {".txt",  ".csv", ".tsv",  ".json",
                                                            ".xml",  ".md",  ".yaml", ".yml",
                                                            ".html", ".py",  ".log",  ".pdf"};

// What network drives, macOS, Windows, version control and notebooks leave beside images. Their
// images are copies or no images at all.
constexpr std::array<std::string_view, 24> kToolNames = {"@eadir",
                                                         "#recycle",
                                                         "#snapshot",
                                                         "@tmp",
                                                         "__macosx",
                                                         "$recycle.bin",
                                                         "system volume information",
                                                         "lost+found",
                                                         "__pycache__",
                                                         "thumbs.db",
                                                         "ehthumbs.db",
                                                         "desktop.ini",
                                                         ".ds_store",
                                                         ".ipynb_checkpoints",
                                                         ".git",
                                                         ".dvc",
                                                         ".cache",
                                                         ".thumbnails",
                                                         ".appledouble",
                                                         ".trashes",
                                                         ".trash",
                                                         ".fseventsd",
                                                         ".spotlight-v100",
                                                         ".temporaryitems"};

// Small versions that image managers keep beside the images; unlike the above a person might have
// chosen the name.
constexpr std::array<std::string_view, 2> kThumbnailNames = {"thumbs", "thumbnails"};

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

template <typename List>
bool contains(const List& list, std::string_view text) {
  return std::find(std::begin(list), std::end(list), text) != std::end(list);
}

bool is_tool_name(const std::string& name) {
  return name.starts_with("._") || name.starts_with(".Trash-") || contains(kToolNames, lower(name));
}

/// Content that begins as an image does, for names that say nothing.
bool begins_as_image(const fs::path& path) {
  std::array<char, 12> bytes{};
  std::error_code error;
  if (!fs::is_regular_file(path, error)) return false;  // reading a pipe would wait
  std::ifstream(path, std::ios::binary).read(bytes.data(), bytes.size());
  const std::string_view head(bytes.data(), bytes.size());
  return head.starts_with("\xFF\xD8\xFF") || head.starts_with("\x89PNG") ||
         head.starts_with("GIF8") || head.starts_with(std::string_view("II*\0", 4)) ||
         head.starts_with(std::string_view("MM\0*", 4)) ||
         (head.starts_with("RIFF") && head.substr(8, 4) == "WEBP") ||
         (head.substr(4, 4) == "ftyp" &&
          (head.substr(8, 3) == "hei" || head.substr(8, 3) == "mif" || head.substr(8, 3) == "avi"));
}

/// All entries, sorted by bytes. Throws Error(io).
std::vector<fs::directory_entry> entries_of(const fs::path& folder) {
  std::vector<fs::directory_entry> entries;
  std::error_code error;
  fs::directory_iterator at(folder, error);
  for (; !error && at != fs::directory_iterator(); at.increment(error)) entries.push_back(*at);
  if (error)
    fail(ErrorKind::io, "{}: cannot read this folder: {}", printable(folder), error.message());
  std::sort(entries.begin(), entries.end(),
            [](const auto& a, const auto& b) { return a.path() < b.path(); });
  return entries;
}

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

bool identify(const fs::path& path, std::pair<uint64_t, uint64_t>& identity) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return false;
  identity = {info.st_dev, info.st_ino};
  return true;
}

}  // namespace

std::string lower_suffix(const fs::path& path) { return lower(path.extension().string()); }

bool has_image_extension(const fs::path& path) {
  return contains(kReadSuffixes, lower_suffix(path));
}

std::vector<fs::path> list_folder(const fs::path& folder) {
  std::vector<fs::path> paths;
  for (const fs::directory_entry& entry : entries_of(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.front() != '.' && !is_tool_name(name)) paths.push_back(entry.path());
  }
  return paths;
}

std::vector<fs::path> walk_images(const fs::path& folder, size_t& others) {
  std::set<fs::path> entered;
  std::vector<fs::path> images;
  walk(folder, entered, images, others);
  std::sort(images.begin(), images.end());
  return images;
}

std::string unread_images(const fs::path& folder) {
  std::map<std::string, size_t> counts;
  size_t all = 0;
  std::error_code error;
  for (fs::recursive_directory_iterator it(folder, error), end; !error && it != end;
       it.increment(error)) {
    const std::string suffix = lower_suffix(it->path());
    if (!contains(kUnreadSuffixes, suffix) || it->path().filename().string().front() == '.')
      continue;
    ++counts[suffix];
    ++all;
  }
  if (all == 0) return {};
  std::vector<std::string> parts;
  parts.reserve(counts.size());
  for (const auto& [suffix, count] : counts) parts.push_back(fmt::format("{} {}", count, suffix));
  return fmt::format("{} image{} of formats that are not read ({})", all, all == 1 ? "" : "s",
                     fmt::join(parts, ", "));
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

size_t Folder::images_below() const {
  size_t count = images.size();
  for (const auto& folder : folders) count += folder->images_below();
  return count;
}

std::map<std::string, size_t> Folder::unread_below() const {
  std::map<std::string, size_t> out;
  for (const fs::path& file : unread) ++out[lower_suffix(file)];
  for (const auto& folder : folders)
    for (const auto& [suffix, count] : folder->unread_below()) out[suffix] += count;
  return out;
}

bool Folder::has_content() const {
  return has_own_content() || (link_to != nullptr && link_to->has_own_content()) ||
         std::any_of(folders.begin(), folders.end(),
                     [](const auto& folder) { return folder->has_content(); });
}

bool Folder::has_own_content() const {
  return !images.empty() || !unread.empty() ||
         std::any_of(folders.begin(), folders.end(),
                     [](const auto& folder) { return folder->has_own_content(); });
}

FolderTree::FolderTree(const fs::path& root) {
  std::error_code error;
  Identity identity;
  for (fs::path above = fs::canonical(root, error); above.has_relative_path();) {
    above = above.parent_path();
    if (identify(above, identity)) above_.insert(identity);
  }
  root_ = read(root, nullptr);
  // Real folders first: a link to one of them is then known as such, wherever it lies.
  for (size_t i = 0; i < links_.size(); ++i) follow(Link(links_[i]));
  std::sort(image_links_.begin(), image_links_.end());
  if (hidden_images_ > 0)
    notes_.push_back(fmt::format("{} hidden images are left out, the first: {}", hidden_images_,
                                 printable(first_hidden_)));
}

std::unique_ptr<Folder> FolderTree::read(const fs::path& path, Folder* parent) {
  auto folder = std::make_unique<Folder>();
  folder->path = path;
  parents_[folder.get()] = parent;
  Identity identity;
  if (identify(path, identity)) known_.emplace(identity, folder.get());
  std::error_code error;
  for (const fs::directory_entry& entry : entries_of(path)) {
    const std::string name = entry.path().filename().string();
    if (is_tool_name(name)) continue;
    const bool is_folder = entry.is_directory(error);
    if (entry.is_symlink(error) && !entry.exists(error) && !has_image_extension(entry.path())) {
      notes_.push_back(
          fmt::format("{}: a link to what is not there; left out", printable(entry.path())));
      continue;
    }
    if (name.front() == '.' || (is_folder && contains(kThumbnailNames, lower(name)))) {
      skip_hidden(entry.path(), is_folder);
    } else if (is_folder && entry.is_symlink(error)) {
      links_.push_back({folder.get(), entry.path()});
    } else if (is_folder) {
      if (identify(entry.path(), identity) && known_.contains(identity)) continue;
      folder->folders.push_back(read(entry.path(), folder.get()));
    } else if (has_image_extension(entry.path())) {
      if (entry.is_symlink(error)) image_links_.push_back(entry.path());
      folder->images.push_back(entry.path());
    } else {
      const std::string suffix = lower_suffix(entry.path());
      if (contains(kUnreadSuffixes, suffix) ||
          (!contains(kTextSuffixes, suffix) && begins_as_image(entry.path())))
        folder->unread.push_back(entry.path());
      else
        ++folder->others[suffix];
    }
  }
  return folder;
}

void FolderTree::follow(const Link& link) {
  Identity identity;
  if (!identify(link.path, identity)) return;
  const auto at = known_.find(identity);
  if (above_.contains(identity) || (at != known_.end() && is_above(at->second, link.parent))) {
    notes_.push_back(
        fmt::format("{}: a link back to a folder above it; not followed", printable(link.path)));
    return;
  }
  if (at == known_.end()) {
    link.parent->folders.push_back(read(link.path, link.parent));
    link.parent->folders.back()->linked = true;
  } else {
    auto folder = std::make_unique<Folder>();
    folder->path = link.path;
    folder->link_to = at->second;
    folder->linked = true;
    parents_[folder.get()] = link.parent;
    link.parent->folders.push_back(std::move(folder));
  }
  std::sort(link.parent->folders.begin(), link.parent->folders.end(),
            [](const auto& a, const auto& b) { return a->path < b->path; });
}

void FolderTree::skip_hidden(const fs::path& path, bool is_folder) {
  if (!is_folder) {
    if (has_image_extension(path) && hidden_images_++ == 0) first_hidden_ = path;
    return;
  }
  size_t others = 0;
  size_t images = 0;
  try {
    images = walk_images(path, others).size();
  } catch (const Error&) {
    return;  // hidden and closed: not meant for us
  }
  const bool hidden = path.filename().string().front() == '.';
  if (images > 0)
    notes_.push_back(fmt::format("{}: {} images in a {} folder; left out (rename it to use them)",
                                 printable(path), images, hidden ? "hidden" : "thumbnails"));
}

bool FolderTree::is_above(const Folder* above, const Folder* below) const {
  for (; below != nullptr; below = parents_.at(below))
    if (below == above) return true;
  return false;
}

const Folder* FolderTree::folder_of_target(const fs::path& link) const {
  std::error_code error;
  const fs::path target = fs::canonical(link, error);
  Identity identity;
  if (error || !identify(target.parent_path(), identity)) return nullptr;
  const auto at = known_.find(identity);
  return at == known_.end() ? nullptr : at->second;
}

}  // namespace graft
