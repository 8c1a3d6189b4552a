// Tar archives by libarchive.
#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <map>

#include "base/descriptor.h"
#include "base/fail.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/progress.h"
#include "dataset/archive_kinds.h"

namespace graft {
namespace {

using Reader = std::unique_ptr<archive, decltype(&archive_read_free)>;

Reader new_reader() {
  Reader reader(archive_read_new(), archive_read_free);
  if (!reader) throw std::bad_alloc();
  return reader;
}

[[noreturn]] void fail_damaged(const fs::path& path, archive* reader) {
  const char* why = archive_error_string(reader);
  fail(ErrorKind::input, "{}: not a usable tar archive: {}; download or copy it again",
       printable(path), printable(why != nullptr ? why : "it cannot be read"));
}

/// The target of a link in an archive: relative to the link's folder.
std::string target_of(const std::string& link, const std::string& target) {
  return (fs::path(link).parent_path() / target).lexically_normal().string();
}

class TarArchive : public Archive {
 public:
  TarArchive(const fs::path& file, const fs::path& path)
      : path_(path), file_(::open(file.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (!file_.valid())
      fail(ErrorKind::io, "{}: cannot open: {}", printable(file), system_error_text(errno));
    read_index(MappedFile(file));
  }

  [[nodiscard]] std::vector<std::byte> read(const Member& member, uint64_t most) const override {
    std::vector<std::byte> out(std::min(member.size, most));
    for (size_t done = 0; done < out.size();) {
      const ssize_t got = ::pread(file_.get(), out.data() + done, out.size() - done,
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
  void read_index(const MappedFile& map) {
    const std::span<const std::byte> bytes = map.bytes();
    const Reader reader = new_reader();
    archive_read_support_format_tar(reader.get());
    if (archive_read_open_memory(reader.get(), bytes.data(), bytes.size()) != ARCHIVE_OK)
      fail_damaged(path_, reader.get());
    std::vector<Member> members;
    std::map<std::string, std::string> links;
    for (archive_entry* entry = nullptr;;) {
      const int status = archive_read_next_header(reader.get(), &entry);
      if (status == ARCHIVE_EOF) break;
      // A warning is of names that the locale cannot write; they are taken as they are.
      if (status != ARCHIVE_OK && status != ARCHIVE_WARN) fail_damaged(path_, reader.get());
      const char* name = archive_entry_pathname(entry);
      if (name == nullptr) continue;
      if (const char* same = archive_entry_hardlink(entry); same != nullptr) {
        links[name] = same;
      } else if (const char* target = archive_entry_symlink(entry); target != nullptr) {
        links[name] = target_of(name, target);
      } else if (archive_entry_filetype(entry) == AE_IFREG) {
        const auto size = static_cast<uint64_t>(archive_entry_size(entry));
        members.push_back({name, size, size == 0 ? 0 : place_of(reader.get(), bytes, size, name)});
      }
    }
    add_links(links, members);
    set_members(std::move(members));
  }

  /// Where the content is: what is not compressed is handed out where it lies in memory.
  uint64_t place_of(archive* reader, std::span<const std::byte> bytes, uint64_t size,
                    const char* name) const {
    const void* data = nullptr;
    size_t count = 0;
    la_int64_t offset = 0;
    if (archive_read_data_block(reader, &data, &count, &offset) != ARCHIVE_OK)
      fail_damaged(path_, reader);
    const auto* at = static_cast<const std::byte*>(data);
    if (offset != 0 || at < bytes.data() || at + size > bytes.data() + bytes.size())
      fail(ErrorKind::input,
           "{}: {} in it ends too early, or is stored with holes; make the archive again",
           printable(path_), printable(name));
    return static_cast<uint64_t>(at - bytes.data());
  }

  void add_links(const std::map<std::string, std::string>& links, std::vector<Member>& members) {
    if (links.empty()) return;
    std::map<std::string, size_t> known;
    for (size_t i = 0; i < members.size(); ++i)
      known[fs::path(members[i].name).lexically_normal().string()] = i;
    size_t lost = 0;
    for (const auto& [name, target] : links) {
      const auto at = known.find(fs::path(target).lexically_normal().string());
      if (at == known.end()) {
        ++lost;
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

  fs::path path_;
  Descriptor file_;
};

/// The size and ends of a file tell it from other versions of it, without reading all.
std::string fingerprint(const fs::path& path) {
  constexpr size_t kEnd = size_t{64} << 10U;
  const MappedFile map(path);
  const std::span<const std::byte> bytes = map.bytes();
  struct stat info {};
  ::stat(path.c_str(), &info);
  const std::string where = whole_path(path).string();
  const size_t count = std::min(bytes.size(), kEnd);
  uint64_t hash = XXH3_64bits_withSeed(where.data(), where.size(), bytes.size());
  hash = XXH3_64bits_withSeed(&info.st_mtim, sizeof(info.st_mtim), hash);
  hash = XXH3_64bits_withSeed(bytes.data(), count, hash);
  hash = XXH3_64bits_withSeed(bytes.data() + bytes.size() - count, count, hash);
  return fmt::format("{:016x}", hash);
}

}  // namespace

std::shared_ptr<const Archive> open_tar(const fs::path& file, const fs::path& path) {
  return std::make_shared<TarArchive>(file, path);
}

fs::path decompressed_tar(const fs::path& path, const RunContext& context) {
  // Photos hardly get smaller; what grows so much is made to fill a disk.
  constexpr uint64_t kMostGrowth = 50;
  constexpr uint64_t kLeastLimit = uint64_t{256} << 20U;
  const fs::path folder = default_cache_folder() / "archives";
  const fs::path target = folder / fmt::format("{}.tar", fingerprint(path));
  std::error_code error;
  if (fs::exists(target, error)) return target;
  make_folder(folder);
  const Reader reader = new_reader();
  archive_read_support_filter_all(reader.get());
  archive_read_support_format_raw(reader.get());
  constexpr size_t kPiece = size_t{1} << 20U;
  archive_entry* entry = nullptr;
  if (archive_read_open_filename(reader.get(), path.c_str(), kPiece) != ARCHIVE_OK ||
      archive_read_next_header(reader.get(), &entry) != ARCHIVE_OK)
    fail_damaged(path, reader.get());
  const uint64_t bytes = fs::file_size(path);
  const uint64_t most = std::max(kMostGrowth * bytes, kLeastLimit);
  Progress progress(context, "decompressing", bytes, "B");
  AtomicFile out(target);
  std::vector<std::byte> piece(kPiece);
  uint64_t sum = 0;
  for (;;) {
    const la_ssize_t got = archive_read_data(reader.get(), piece.data(), piece.size());
    if (got < 0) fail_damaged(path, reader.get());
    if (got == 0) break;
    const auto content = std::span(piece).first(static_cast<size_t>(got));
    if (sum == 0 && archive_kind(content) != ArchiveKind::tar)
      fail(ErrorKind::input, "{}: a compressed file that is no tar archive; unpack it",
           printable(path));
    sum += content.size();
    if (sum > most)
      fail(ErrorKind::input,
           "{}: it grows to more than {} times its size when it is decompressed, which photos do "
           "not; unpack it yourself if it is what it should be",
           printable(path), kMostGrowth);
    out.write(content);
    progress.update(std::min<uint64_t>(bytes, static_cast<uint64_t>(std::max<la_int64_t>(
                                                  0, archive_filter_bytes(reader.get(), -1)))));
    context.check_stop();
  }
  progress.finish();
  out.commit();
  return target;
}

}  // namespace graft
