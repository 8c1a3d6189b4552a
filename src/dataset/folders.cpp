#include "dataset/folders.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <chrono>
#include <fstream>
#include <optional>
#include <set>
#include <system_error>

#include "base/fail.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/progress.h"
#include "dataset/archive.h"
#include "dataset/dataset.h"
#include "dataset/named_files.h"
#include "dataset/suffix_counts.h"
#include "dataset/tar_shards.h"
#include "graft/explain.h"
#include "image/formats.h"

namespace graft {
namespace {

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
bool has_image_content(const fs::path& path) {
  std::array<std::byte, 24> bytes{};
  std::error_code error;
  if (fs::is_regular_file(path, error)) {  // reading a pipe would wait
    std::ifstream(path, std::ios::binary)
        .read(reinterpret_cast<char*>(bytes.data()), static_cast<long>(bytes.size()));
    return begins_as_image(bytes);
  }
  const std::optional<InArchive> inside = find_in_archive(path);
  const Archive::Member* member = inside ? inside->archive->find(inside->name) : nullptr;
  if (member == nullptr) return false;
  try {
    return begins_as_image(inside->archive->read(*member, bytes.size()));
  } catch (const Error&) {
    return false;
  }
}

/// The last part of a path.
std::string_view name_of(const fs::path& path) {
  const std::string_view text = path.native();
  return text.substr(text.rfind('/') + 1);
}

struct Entry {
  fs::path path;
  bool is_folder = false;
  bool is_link = false;
  bool is_there = true;  // else a link to nothing
};

/// All entries of a folder or archive, sorted by bytes. Throws Error(io).
std::vector<Entry> entries_of(const fs::path& folder) {
  std::vector<Entry> entries;
  if (const std::optional<InArchive> inside = find_in_archive(folder)) {
    for (Archive::Entry& entry : inside->archive->list(inside->name))
      entries.push_back({folder / entry.name, entry.is_folder});
  } else {
    std::error_code error;
    fs::directory_iterator at(folder, error);
    for (; !error && at != fs::directory_iterator(); at.increment(error)) {
      std::error_code none;
      entries.push_back({at->path(), at->is_directory(none), at->is_symlink(none)});
      if (entries.back().is_link) entries.back().is_there = at->exists(none);
    }
    if (error)
      fail(ErrorKind::io, "{}: cannot read this folder: {}", printable(folder),
           system_error_text(error.value()));
  }
  // Within a folder that is the order of paths, found in a tenth of the time.
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return a.path.native() < b.path.native(); });
  return entries;
}

/// Takes out what 'graft predict --explain' drew among the photos, and says how many there were.
size_t leave_out_maps(const fs::path& folder, std::vector<Entry>& entries) {
  std::error_code error;
  if (!fs::is_regular_file(folder / kMapListName, error)) return 0;
  return std::erase_if(entries, [](const Entry& entry) {
    return !entry.is_folder && lower_suffix(entry.path) == ".png" &&
           is_png_of(entry.path, kMapSoftware);
  });
}

}  // namespace

/// Tells how far a scan has come, once it takes longer than anybody waits without a word.
class ScanProgress {
 public:
  explicit ScanProgress(const RunContext& context) : context_(context) {}

  void add_folder(const std::vector<Entry>& entries) {
    constexpr std::chrono::seconds kPatience{1};
    ++done_;
    for (const Entry& entry : entries) {
      known_ += static_cast<size_t>(entry.is_folder);
      images_ += static_cast<size_t>(!entry.is_folder && has_image_extension(entry.path));
    }
    if (!progress_) {
      context_.check_stop();
      if (std::chrono::steady_clock::now() - start_ < kPatience) return;
      progress_.emplace(context_, "scanning", known_, "folders");
    }
    progress_->extend(known_);
    progress_->update(done_, fmt::format("{} images", images_));
    context_.check_stop();
  }
  void finish() {
    if (progress_) progress_->finish(fmt::format("{} images", images_));
  }

 private:
  const RunContext& context_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  size_t done_ = 0;
  size_t known_ = 1;
  size_t images_ = 0;
  std::optional<Progress> progress_;
};

namespace {

void walk(const fs::path& folder, std::set<fs::path>& entered, ScanProgress& progress,
          Walked& out) {
  std::error_code error;
  const fs::path real = fs::canonical(folder, error);
  // A cycle of links, or a dangling one; archives have none.
  if (error ? error != std::errc::not_a_directory : !entered.insert(real).second) return;
  std::vector<Entry> entries = entries_of(folder);
  out.maps += leave_out_maps(folder, entries);
  progress.add_folder(entries);
  for (Entry& entry : entries) {
    if (is_left_behind(std::string(name_of(entry.path)))) continue;
    if (entry.is_folder)
      walk(entry.path, entered, progress, out);
    else if (has_image_extension(entry.path))
      out.images.push_back(std::move(entry.path));
    else
      ++out.others[lower_suffix(entry.path)];
  }
}

std::string maps_text(size_t maps) {
  return fmt::format("{} map{} that 'graft predict --explain' drew", maps, maps == 1 ? "" : "s");
}

bool identify(const fs::path& path, std::pair<uint64_t, uint64_t>& identity) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return false;
  identity = {info.st_dev, info.st_ino};
  return true;
}

}  // namespace

bool is_left_behind(const std::string& name) { return name.front() == '.' || is_tool_name(name); }

std::string lower_suffix(const fs::path& path) {
  // As path::extension(), which copies the whole path for it.
  const std::string_view name = name_of(path);
  const size_t dot = name.rfind('.');
  if (dot == std::string_view::npos || dot == 0 || name == "..") return {};
  return lower(std::string(name.substr(dot)));
}

bool has_image_extension(const fs::path& path) {
  return format_of_suffix(lower_suffix(path)).has_value();
}

std::vector<fs::path> list_folder(const fs::path& folder) {
  std::vector<fs::path> paths;
  for (Entry& entry : entries_of(folder))
    if (!is_left_behind(std::string(name_of(entry.path)))) paths.push_back(std::move(entry.path));
  return paths;
}

Walked walk_images(const fs::path& folder, const RunContext& context) {
  std::set<fs::path> entered;
  Walked walked;
  ScanProgress progress(context);
  walk(folder, entered, progress, walked);
  progress.finish();
  // Folders were walked in the order of their names, which most often is the order of all.
  if (!std::is_sorted(walked.images.begin(), walked.images.end()))
    std::sort(walked.images.begin(), walked.images.end());
  return walked;
}

namespace {

/// "3 files of kinds that are not read (1 .cr2, 2 .mov)".
std::string unread_text(const Walked& walked) {
  size_t all = 0;
  SuffixCounts unread;
  for (const auto& [suffix, count] : walked.others) {
    if (unread_kind(suffix) == nullptr) continue;
    unread[suffix] += count;
    all += count;
  }
  std::string text;
  if (all > 0)
    text = fmt::format("{} file{} of kinds that are not read ({})", all, all == 1 ? "" : "s",
                       suffixes(unread));
  if (walked.maps > 0) text += (text.empty() ? "" : ", ") + maps_text(walked.maps);
  return text;
}

}  // namespace

std::vector<fs::path> list_images(const fs::path& path, const RunContext& context,
                                  std::string* unread) {
  if (std::optional<std::vector<fs::path>> listed = named_files(path)) {
    // Of millions of names, those of images are looked at when they are read.
    if (std::all_of(listed->begin(), listed->end(), has_image_extension)) return *std::move(listed);
    std::vector<fs::path> images;
    for (fs::path& file : *listed) {
      if (has_image_extension(file)) {
        images.push_back(std::move(file));
        continue;
      }
      for (fs::path& image : list_images(file, context)) images.push_back(std::move(image));
    }
    return images;
  }
  require_reachable(path);
  const PathKind kind = kind_of_path(path, context);
  if (kind == PathKind::nothing)
    fail(ErrorKind::input, "{}: no such file or folder", printable(path));
  if (kind == PathKind::file) return {path};
  if (const std::vector<fs::path> shards = tar_shards_in(path); !shards.empty()) {
    std::vector<fs::path> images;
    for (const fs::path& shard : shards)
      for (fs::path& image : list_images(shard, context)) images.push_back(std::move(image));
    return images;
  }
  Walked walked = walk_images(path, context);
  const std::string left_out = unread_text(walked);
  if (unread != nullptr) *unread = left_out;
  if (!walked.images.empty()) return std::move(walked.images);
  fail(ErrorKind::input, "{}: no image in this folder{} (read are {})", printable(path),
       left_out.empty() ? "" : ", only " + left_out, format_names());
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

std::map<std::string, size_t> Folder::videos_below() const {
  std::map<std::string, size_t> out = videos;
  for (const auto& folder : folders)
    for (const auto& [suffix, count] : folder->videos_below()) out[suffix] += count;
  return out;
}

bool Folder::has_content() const {
  return has_own_content() || (link_to != nullptr && link_to->has_own_content()) ||
         std::any_of(folders.begin(), folders.end(),
                     [](const auto& folder) { return folder->has_content(); });
}

bool Folder::has_own_content() const {
  return !images.empty() || !unread.empty() || !videos.empty() ||
         std::any_of(folders.begin(), folders.end(),
                     [](const auto& folder) { return folder->has_own_content(); });
}

FolderTree::FolderTree(const fs::path& root, const RunContext& context) {
  ScanProgress progress(context);
  progress_ = &progress;
  std::error_code error;
  Identity identity;
  for (fs::path above = fs::canonical(root, error); above.has_relative_path();) {
    above = above.parent_path();
    if (identify(above, identity)) above_.insert(identity);
  }
  root_ = read(root, nullptr);
  if (const std::optional<InArchive> inside = find_in_archive(root))
    notes_.insert(notes_.end(), inside->archive->notes().begin(), inside->archive->notes().end());
  // Real folders first: a link to one of them is then known as such, wherever it lies.
  for (size_t i = 0; i < links_.size(); ++i) follow(Link(links_[i]));
  std::sort(image_links_.begin(), image_links_.end());
  if (hidden_images_ > 0)
    notes_.push_back(fmt::format("{} hidden images are left out, the first: {}", hidden_images_,
                                 printable(first_hidden_)));
  progress.finish();
  progress_ = nullptr;
}

std::unique_ptr<Folder> FolderTree::read(const fs::path& path, Folder* parent) {
  auto folder = std::make_unique<Folder>();
  folder->path = path;
  parents_[folder.get()] = parent;
  Identity identity;
  if (identify(path, identity)) known_.emplace(identity, folder.get());
  std::vector<Entry> entries = entries_of(path);
  folder->maps = leave_out_maps(path, entries);
  if (folder->maps > 0)
    notes_.push_back(fmt::format("{}: {}; left out", printable(path), maps_text(folder->maps)));
  progress_->add_folder(entries);
  for (const Entry& entry : entries) {
    const std::string name = entry.path.filename().string();
    if (is_tool_name(name)) continue;
    if (!entry.is_there && !has_image_extension(entry.path)) {
      notes_.push_back(
          fmt::format("{}: a link to what is not there; left out", printable(entry.path)));
      continue;
    }
    if (name.front() == '.' || (entry.is_folder && contains(kThumbnailNames, lower(name)))) {
      skip_hidden(entry.path, entry.is_folder);
    } else if (entry.is_folder && entry.is_link) {
      links_.push_back({folder.get(), entry.path});
    } else if (entry.is_folder) {
      if (identify(entry.path, identity) && known_.contains(identity)) continue;
      folder->folders.push_back(read(entry.path, folder.get()));
    } else if (has_image_extension(entry.path)) {
      if (entry.is_link) image_links_.push_back(entry.path);
      folder->images.push_back(entry.path);
    } else {
      add_other(*folder, entry.path);
    }
  }
  return folder;
}

void FolderTree::add_other(Folder& folder, const fs::path& file) {
  const std::string suffix = lower_suffix(file);
  const UnreadKind* kind = unread_kind(suffix);
  if (kind != nullptr && !kind->image)
    ++folder.videos[suffix];
  else if (kind != nullptr || (!contains(kTextSuffixes, suffix) && has_image_content(file)))
    folder.unread.push_back(file);
  else
    ++folder.others[suffix];
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
  size_t images = 0;
  try {
    images = walk_images(path).images.size();
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
