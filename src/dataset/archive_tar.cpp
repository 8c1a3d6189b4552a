// Tar archives by libarchive.
#include <archive_entry.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>

#include "base/descriptor.h"
#include "base/fail.h"
#include "base/file.h"
#include "base/limits.h"
#include "dataset/archive_kinds.h"
#include "dataset/libarchive.h"

namespace graft {
namespace {

/// The target of a link in an archive: relative to the link's folder.
std::string target_of(const std::string& link, const std::string& target) {
  return (fs::path(link).parent_path() / target).lexically_normal().string();
}

class TarArchive : public Archive {
 public:
  TarArchive(const fs::path& file, const fs::path& path, bool stays) : path_(path), at_(file) {
    file_ = open();
    if (::fstat(file_.get(), &info_) != 0)
      fail(ErrorKind::io, "{}: cannot open: {}", printable(file), system_error_text(errno));
    read_index(MappedFile(file));
    if (stays) file_.close();
  }

  [[nodiscard]] std::vector<std::byte> read(const Member& member, uint64_t most) const override {
    std::vector<std::byte> out(std::min(member.size, most));
    Descriptor opened;
    if (!file_.valid()) opened = reopen();
    const int file = file_.valid() ? file_.get() : opened.get();
    for (size_t done = 0; done < out.size();) {
      const ssize_t got = ::pread(file, out.data() + done, out.size() - done,
                                  static_cast<off_t>(member.place + done));
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0)
        fail(ErrorKind::io, "{}: cannot be read from the archive: {}",
             printable(path_ / member.name), got < 0 ? system_error_text(errno) : "it ends early");
      done += static_cast<size_t>(got);
    }
    return out;
  }

 private:
  [[nodiscard]] Descriptor open() const {
    Descriptor file(::open(at_.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file.valid())
      fail(ErrorKind::io, "{}: cannot open: {}", printable(at_), system_error_text(errno));
    return file;
  }

  /// The file that was indexed, which may have been replaced since.
  [[nodiscard]] Descriptor reopen() const {
    Descriptor file = open();
    struct stat info {};
    if (::fstat(file.get(), &info) != 0 || info.st_dev != info_.st_dev ||
        info.st_ino != info_.st_ino || info.st_size != info_.st_size ||
        info.st_mtim.tv_sec != info_.st_mtim.tv_sec ||
        info.st_mtim.tv_nsec != info_.st_mtim.tv_nsec)
      fail(ErrorKind::io, "{}: has changed while it was being read", printable(path_));
    return file;
  }

  void read_index(const MappedFile& map) {
    const std::span<const std::byte> bytes = map.bytes();
    // Of a large archive that is not in memory, headers are a hundredth.
    if (!bytes.empty()) ::madvise(const_cast<std::byte*>(bytes.data()), bytes.size(), MADV_RANDOM);
    const ArchiveReader reader = new_archive_reader();
    archive_read_support_format_tar(reader.get());
    if (archive_read_open_memory(reader.get(), bytes.data(), bytes.size()) != ARCHIVE_OK)
      fail_damaged_tar(path_, reader.get());
    std::vector<Member> members;
    std::map<std::string, std::string> links;
    std::vector<std::string> folders;
    for (archive_entry* entry = nullptr;;) {
      const int status = archive_read_next_header(reader.get(), &entry);
      if (status == ARCHIVE_EOF) break;
      // A warning is of names that the locale cannot write; they are taken as they are.
      if (status != ARCHIVE_OK && status != ARCHIVE_WARN) fail_damaged_tar(path_, reader.get());
      const char* name = archive_entry_pathname(entry);
      if (name == nullptr) continue;
      if (const char* same = archive_entry_hardlink(entry); same != nullptr) {
        links[name] = same;
      } else if (const char* target = archive_entry_symlink(entry); target != nullptr) {
        links[name] = target_of(name, target);
      } else if (archive_entry_filetype(entry) == AE_IFDIR) {
        folders.emplace_back(name);
      } else if (archive_entry_filetype(entry) == AE_IFREG) {
        const auto size = static_cast<uint64_t>(archive_entry_size(entry));
        members.push_back({name, size, size == 0 ? 0 : place_of(reader.get(), bytes, size, name)});
      }
    }
    add_links(links, members, folders);
    set_members(std::move(members), folders);
  }

  /// Where the content is: what is not compressed is handed out where it lies in memory.
  uint64_t place_of(archive* reader, std::span<const std::byte> bytes, uint64_t size,
                    const char* name) const {
    const void* data = nullptr;
    size_t count = 0;
    la_int64_t offset = 0;
    if (archive_read_data_block(reader, &data, &count, &offset) != ARCHIVE_OK)
      fail_damaged_tar(path_, reader);
    const auto* at = static_cast<const std::byte*>(data);
    if (offset != 0 || at < bytes.data() || at + size > bytes.data() + bytes.size())
      fail(ErrorKind::input,
           "{}: {} in it ends too early, or is stored with holes; make the archive again",
           printable(path_), printable(name));
    return static_cast<uint64_t>(at - bytes.data());
  }

  void add_links(const std::map<std::string, std::string>& links, std::vector<Member>& members,
                 std::vector<std::string>& folders) {
    if (links.empty()) return;
    std::map<std::string, size_t> known;
    for (size_t i = 0; i < members.size(); ++i)
      known[fs::path(members[i].name).lexically_normal().string()] = i;
    size_t lost = 0;
    for (const auto& [name, target] : links) {
      const auto at = known.find(fs::path(target).lexically_normal().string());
      if (at == known.end()) {
        ++lost;
        folders.push_back(fs::path(name).parent_path().string());  // a class may be links alone
        continue;
      }
      Member member = members[at->second];
      member.name = name;
      members.push_back(std::move(member));
    }
    if (lost > 0)
      add_note(fmt::format("{}: {} to folders or to what is not in it; left out", printable(path_),
                           lost == 1 ? "a link" : fmt::format("{} links", lost)));
  }

  fs::path path_;  // for messages
  fs::path at_;
  struct stat info_ {};
  Descriptor file_;  // none of an archive that stays
};

}  // namespace

std::shared_ptr<const Archive> open_tar(const fs::path& file, const fs::path& path, bool stays) {
  return std::make_shared<TarArchive>(file, path, stays);
}

}  // namespace graft
