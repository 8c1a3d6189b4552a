// Files: whole reads, memory maps, and writes that replace their target only when complete.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace graft {

namespace fs = std::filesystem;

/// Reads a whole regular file. Throws Error(io) that names the file and the reason.
/// Images and texts are smaller than this; what is larger is refused before it is read.
inline constexpr uint64_t kMostFileBytes = uint64_t{1} << 30U;
std::vector<std::byte> read_file(const fs::path& path, uint64_t most = kMostFileBytes);
std::string read_text_file(const fs::path& path, uint64_t most = kMostFileBytes);

/// Reads what a path leads to behind a regular file, which is then more than one: an archive. False
/// where it leads to nothing.
using ReaderInsideFiles = bool (*)(const fs::path& path, uint64_t most,
                                   std::vector<std::byte>& out);
/// From here on read_file() and read_text_file() ask it (dataset/archive.h).
void set_reader_inside_files(ReaderInsideFiles reader);

/// A read-only private memory map of a regular file. Movable; unmapped on destruction.
class MappedFile {
 public:
  explicit MappedFile(const fs::path& path);
  /// A file below a folder, by a name that a file from strangers gives: a relative one, without
  /// "..", and no symbolic link on the way is followed. Throws Error(input) for other names, else
  /// as the constructor does.
  static MappedFile below(const fs::path& folder, const fs::path& relative);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  [[nodiscard]] std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  MappedFile() = default;
  void map(int fd, const fs::path& path);

  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

/// Writes to a temporary file beside `path`; commit() fsyncs it, renames it over `path` and fsyncs
/// the folder. Without commit() the temporary file is removed and `path` is left as it was.
///
/// The temporary file is locked while it is written, so that those that killed processes left
/// behind are known: the folder's are removed here (of a large folder's those that are found soon).
/// Throws Error(io).
class AtomicFile {
 public:
  explicit AtomicFile(fs::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  /// Replaces the first bytes; nothing can be appended afterwards.
  void rewrite_start(std::string_view text);
  /// What was written so far can be read under temporary() from here on.
  void flush();
  /// The name of the file until commit(), for libraries that write to names, and for checks of what
  /// was written.
  [[nodiscard]] const fs::path& temporary() const { return temporary_; }
  void commit();

 private:
  [[noreturn]] void fail_write() const;

  fs::path path_;
  fs::path temporary_;
  std::FILE* file_ = nullptr;
};

/// Whether two names lead to one place, there or not.
bool same_file(const fs::path& a, const fs::path& b);

void write_file_atomic(const fs::path& path, std::string_view text);

/// Throws Error(io) where a folder on the way to `path` may not be entered: what cannot be seen is
/// not to be taken for missing.
void require_reachable(const fs::path& path);

/// The path by which a file is told from others, however it was typed: whole, links followed as far
/// as they lead.
fs::path whole_path(const fs::path& path);

/// Gives the file `source` the further name `target`, whatever bore it before: a hard link where
/// the file system has them, else a copy. Throws Error(io).
void link_atomic(const fs::path& source, const fs::path& target);

/// Removes what killed processes left of AtomicFile's and link_atomic's work in a folder, of which
/// it looks at `most` entries. Files that a living process is writing stay.
void remove_leftovers(const fs::path& folder, size_t most = SIZE_MAX);

/// Whether it is a regular file that begins so.
bool file_begins_with(const fs::path& file, std::string_view text);

/// Creates a folder and its parents. Throws Error(io) that says why it cannot.
void make_folder(const fs::path& path);

/// The folder for files that Graft can fetch or compute again: $XDG_CACHE_HOME/graft, or
/// ~/.cache/graft.
fs::path default_cache_folder();

/// A path as printable text: control characters and invalid UTF-8 become '?'.
std::string printable(const fs::path& path);

}  // namespace graft
