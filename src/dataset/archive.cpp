#include "dataset/archive.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <map>
#include <mutex>
#include <utility>

#include "base/bytes.h"
#include "base/descriptor.h"
#include "base/fail.h"
#include "base/file.h"
#include "dataset/archive_kinds.h"
#include "dataset/dataset.h"
#include "dataset/folders.h"

namespace graft {
namespace {

// Deeper folders and longer names are made to cost time; file systems stop at the second.
constexpr size_t kMostParts = 64;
constexpr size_t kMostName = 4000;

/// "./sea//1.jpg" → "sea/1.jpg"; empty for what leads out, or is no name of a photo.
std::string clean_name(std::string_view name) {
  std::string out;
  if (name.starts_with('/') || name.size() > kMostName ||
      static_cast<size_t>(std::count(name.begin(), name.end(), '/')) > kMostParts)
    return out;
  while (!name.empty()) {
    const size_t end = std::min(name.find('/'), name.size());
    const std::string_view part = name.substr(0, end);
    name.remove_prefix(std::min(end + 1, name.size()));
    if (part.empty() || part == ".") continue;
    if (part == "..") return {};
    if (!out.empty()) out += '/';
    out += part;
  }
  return out;
}

std::string below(std::string_view folder) {
  return folder.empty() ? std::string() : std::string(folder) + '/';
}

/// Which file it was, and in what state.
struct Stamp {
  uint64_t device = 0;
  uint64_t inode = 0;
  int64_t size = 0;
  int64_t seconds = 0;
  int64_t nanoseconds = 0;
  bool operator==(const Stamp&) const = default;
};

class KnownArchives {
 public:
  std::shared_ptr<const Archive> get(const fs::path& file, const struct stat& info,
                                     const RunContext& context) {
    const Stamp stamp{info.st_dev, info.st_ino, info.st_size, info.st_mtim.tv_sec,
                      info.st_mtim.tv_nsec};
    std::shared_ptr<Known> known;
    {
      const std::lock_guard lock(mutex_);
      std::shared_ptr<Known>& slot = known_[file];
      if (slot == nullptr) slot = std::make_shared<Known>();
      known = slot;
    }
    // Several archives may be opened at once, but each by one thread.
    const std::lock_guard lock(known->mutex);
    if (known->archive != nullptr && known->stamp == stamp) return known->archive;
    std::shared_ptr<const Archive> archive = open(file, context);
    if (archive != nullptr) {
      known->stamp = stamp;
      known->archive = archive;
      return archive;
    }
    // Manifests lead to millions of files that are none, of which nothing is kept.
    const std::lock_guard all(mutex_);
    known_.erase(file);
    return nullptr;
  }

 private:
  static std::shared_ptr<const Archive> open(const fs::path& file, const RunContext& context) {
    std::array<std::byte, 512> start{};
    const Descriptor fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (!fd.valid()) return nullptr;  // whoever reads it says why
    const ssize_t count = ::read(fd.get(), start.data(), start.size());
    if (count < 0) return nullptr;
    switch (archive_kind({start.data(), static_cast<size_t>(count)})) {
      case ArchiveKind::zip:
        return open_zip(file);
      case ArchiveKind::tar:
        return open_tar(file, file, /*stays=*/true);
      case ArchiveKind::compressed_tar:
        return open_tar(decompressed_tar(file, context), file, /*stays=*/false);
      case ArchiveKind::unread:
        fail(
            ErrorKind::input,
            "{}: an archive of a kind that is not read (7z or RAR); unpack it, or make it a zip or "
            "tar",
            printable(file));
      case ArchiveKind::none:
        break;
    }
    if (lower_suffix(file) == ".zip" && count > 0) return open_zip(file);  // behind a program
    if (is_archive_name(file))
      fail(ErrorKind::input, "{}: no zip or tar archive, by its content; download or copy it again",
           printable(file));
    return nullptr;
  }

  struct Known {
    std::mutex mutex;
    Stamp stamp;
    std::shared_ptr<const Archive> archive;
  };

  std::mutex mutex_;
  std::map<fs::path, std::shared_ptr<Known>> known_;
};

/// Zip archives by their form that nobody means as one.
bool is_document(const fs::path& file) {
  const std::string suffix = lower_suffix(file);
  return suffix == ".xlsx" || suffix == ".xlsm" || suffix == ".ods";
}

/// read_file() of what is in an archive.
bool read_inside(const fs::path& path, uint64_t most, std::vector<std::byte>& out) {
  const std::optional<InArchive> inside = find_in_archive(path);
  if (!inside) return false;
  const Archive::Member* member = inside->archive->find(inside->name);
  if (member == nullptr) fail(ErrorKind::io, "{}: no such file in the archive", printable(path));
  if (member->size > most)
    fail(ErrorKind::input, "{}: too large: {} bytes, and at most {} are read", printable(path),
         member->size, most);
  out = inside->archive->read(*member);
  return true;
}

// Whoever has this part of the library reads images by such paths, whether or not it has looked at
// the archive before.
[[maybe_unused]] const bool registered = (set_reader_inside_files(read_inside), true);

}  // namespace

ArchiveKind archive_kind(std::span<const std::byte> bytes) {
  if (has_magic(bytes, "PK\3\4") || has_magic(bytes, "PK\5\6")) return ArchiveKind::zip;
  constexpr size_t kUstar = 257;
  if (has_magic(bytes, "ustar", kUstar)) return ArchiveKind::tar;
  for (const std::string_view magic :
       {std::string_view("\x1F\x8B"), std::string_view("BZh"),
        std::string_view("\xFD"
                         "7zXZ\0",
                         6),
        std::string_view("\x28\xB5\x2F\xFD"), std::string_view("\x04\x22\x4D\x18")})
    if (has_magic(bytes, magic)) return ArchiveKind::compressed_tar;
  if (has_magic(bytes, "7z\xBC\xAF\x27\x1C") || has_magic(bytes, "Rar!\x1A\x07"))
    return ArchiveKind::unread;
  return ArchiveKind::none;
}

void Archive::set_members(std::vector<Member> members, const std::vector<std::string>& folders) {
  for (Member& member : members) member.name = clean_name(member.name);
  const size_t all = members.size();
  std::erase_if(members, [](const Member& member) { return member.name.empty(); });
  if (members.size() < all)
    add_note(fmt::format("{} files whose names lead out of the archive, or are too long: left out",
                         all - members.size()));
  std::stable_sort(members.begin(), members.end(),
                   [](const Member& a, const Member& b) { return a.name < b.name; });
  size_t again = 0;
  for (Member& member : members) {
    if (!members_.empty() && members_.back().name == member.name) {
      members_.pop_back();
      repeated_.insert(member.name);
      ++again;
    }
    members_.push_back(std::move(member));
  }
  if (again > 0)
    add_note(fmt::format("{} names that the archive has more than once: the last counts", again));
  for (const std::string& folder : folders) {
    const std::string name = clean_name(folder);
    if (!name.empty() && !has_folder(name)) folders_.insert(name);
  }
}

const Archive::Member* Archive::find(std::string_view name) const {
  const auto at = std::lower_bound(
      members_.begin(), members_.end(), name,
      [](const Member& member, std::string_view wanted) { return member.name < wanted; });
  return at != members_.end() && at->name == name ? &*at : nullptr;
}

bool Archive::has_folder(std::string_view name) const {
  if (name.empty()) return true;
  const std::string start = below(name);
  const auto at = std::lower_bound(
      members_.begin(), members_.end(), start,
      [](const Member& member, const std::string& wanted) { return member.name < wanted; });
  if (at != members_.end() && at->name.starts_with(start)) return true;
  const auto empty = folders_.lower_bound(start);
  return folders_.contains(std::string(name)) ||
         (empty != folders_.end() && empty->starts_with(start));
}

std::vector<Archive::Entry> Archive::list(std::string_view folder) const {
  const std::string start = below(folder);
  const auto less = [](const Member& member, const std::string& name) {
    return member.name < name;
  };
  std::vector<Entry> entries;
  auto at = std::lower_bound(members_.begin(), members_.end(), start, less);
  while (at != members_.end() && at->name.starts_with(start)) {
    const std::string rest = at->name.substr(start.size());
    const size_t slash = rest.find('/');
    entries.push_back({rest.substr(0, slash), slash != std::string::npos});
    if (slash == std::string::npos) {
      ++at;
      continue;
    }
    // Behind all that is below it: the character that follows '/'.
    const std::string end = start + rest.substr(0, slash) + '0';
    at = std::lower_bound(at, members_.end(), end, less);
  }
  for (auto empty = folders_.lower_bound(start);
       empty != folders_.end() && empty->starts_with(start); ++empty) {
    const std::string_view rest = std::string_view(*empty).substr(start.size());
    entries.push_back({std::string(rest.substr(0, rest.find('/'))), true});
  }
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return a.name < b.name; });
  const auto same = [](const Entry& a, const Entry& b) { return a.name == b.name; };
  entries.erase(std::unique(entries.begin(), entries.end(), same), entries.end());
  return entries;
}

bool is_archive_name(const fs::path& file) {
  const std::string suffix = lower_suffix(file);
  if (suffix == ".zip" || suffix == ".tar" || suffix == ".tgz" || suffix == ".txz" ||
      suffix == ".tbz2")
    return true;
  return lower_suffix(file.stem()) == ".tar";
}

std::optional<InArchive> find_in_archive(const fs::path& path, const RunContext& context) {
  static KnownArchives known;
  struct stat info {};
  if (::stat(path.c_str(), &info) == 0) {
    if (!S_ISREG(info.st_mode) || has_image_extension(path) || is_document(path))
      return std::nullopt;
    std::shared_ptr<const Archive> archive = known.get(path, info, context);
    if (archive == nullptr) return std::nullopt;
    return InArchive{std::move(archive), ""};
  }
  if (errno != ENOTDIR) return std::nullopt;
  for (fs::path file = path.parent_path(); file.has_relative_path(); file = file.parent_path()) {
    if (::stat(file.c_str(), &info) != 0) continue;
    if (!S_ISREG(info.st_mode)) return std::nullopt;
    std::shared_ptr<const Archive> archive = known.get(file, info, context);
    if (archive == nullptr) return std::nullopt;
    std::string_view name = path.native();
    name.remove_prefix(file.native().size());
    while (name.starts_with('/')) name.remove_prefix(1);
    while (name.ends_with('/')) name.remove_suffix(1);
    return InArchive{std::move(archive), std::string(name)};
  }
  return std::nullopt;
}

PathKind kind_of_path(const fs::path& path, const RunContext& context) {
  if (const std::optional<InArchive> inside = find_in_archive(path, context)) {
    if (inside->archive->find(inside->name) != nullptr) return PathKind::file;
    return inside->archive->has_folder(inside->name) ? PathKind::folder : PathKind::nothing;
  }
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) return PathKind::nothing;
  return fs::is_directory(status) ? PathKind::folder : PathKind::file;
}

std::optional<uint64_t> size_of_path(const fs::path& path) {
  std::error_code error;
  const uintmax_t size = fs::file_size(path, error);
  if (!error) return size;
  const std::optional<InArchive> inside = find_in_archive(path);
  const Archive::Member* member = inside ? inside->archive->find(inside->name) : nullptr;
  if (member == nullptr) return std::nullopt;
  return member->size;
}

}  // namespace graft
