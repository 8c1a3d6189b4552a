// Archives of images (.zip, .tar, compressed .tar) that are read in place, as if they were folders:
// DATA may be one, and paths lead into it ("photos.zip/sea/1.jpg"). Nothing is unpacked; a
// compressed tar, in which nothing can be found without reading all before it, is decompressed once
// into the cache folder.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "graft/context.h"

namespace graft {

/// The index of an archive, and its content. All functions are thread-safe.
class Archive {
 public:
  struct Member {
    std::string name;    ///< "sea/1.jpg": relative, without "." and ".."
    uint64_t size = 0;   ///< of its content
    uint64_t place = 0;  ///< where the archive has it
  };
  struct Entry {
    std::string name;  ///< without its folder's
    bool is_folder = false;
  };

  virtual ~Archive() = default;
  /// A member's content, or its first bytes. Damage shows where all is read. Throws Error(input)
  /// that begins with the member's path.
  [[nodiscard]] virtual std::vector<std::byte> read(const Member& member,
                                                    uint64_t most = UINT64_MAX) const = 0;

  /// Null where no file has that name.
  [[nodiscard]] const Member* find(std::string_view name) const;
  /// Whether it is a folder; the archive itself ("") is one.
  [[nodiscard]] bool has_folder(std::string_view name) const;
  /// What is directly in a folder, sorted by name.
  [[nodiscard]] std::vector<Entry> list(std::string_view folder) const;
  /// All files, sorted by name.
  [[nodiscard]] const std::vector<Member>& members() const { return members_; }
  /// Names that the archive has more than once.
  [[nodiscard]] const std::set<std::string, std::less<>>& repeated() const { return repeated_; }
  /// What cannot be reached, and why: a line each.
  [[nodiscard]] const std::vector<std::string>& notes() const { return notes_; }

 protected:
  Archive() = default;
  /// Brings names into the form above; the last of several with one name counts, and names that
  /// lead out of the archive are left out, as is done by those who unpack.
  /// `folders`: those that the archive names, with files in them or not.
  void set_members(std::vector<Member> members, const std::vector<std::string>& folders);
  void add_note(std::string note) { notes_.push_back(std::move(note)); }

 private:
  std::vector<Member> members_;  // sorted by name
  std::set<std::string, std::less<>> repeated_;
  std::set<std::string> folders_;  // without a file below them
  std::vector<std::string> notes_;
};

/// A path that is an archive, or leads into one.
struct InArchive {
  std::shared_ptr<const Archive> archive;
  std::string name;  ///< in it; "" for the archive itself
};

/// Nothing where no regular file on the way is an archive. Indexes are kept, for as long as the
/// file does not change. Throws Error(input) for an archive that is damaged, encrypted, or of a
/// kind that is not read (7z, RAR), and Error(io).
std::optional<InArchive> find_in_archive(const std::filesystem::path& path,
                                         const RunContext& context = {});

/// Whether a file goes by the name of an archive that is read: .zip, .tar, .tar.gz, .tgz …
bool is_archive_name(const std::filesystem::path& file);

enum class PathKind { nothing, file, folder };
/// What a path leads to, an archive being a folder.
PathKind kind_of_path(const std::filesystem::path& path, const RunContext& context = {});

/// Of a file, in an archive or not; nothing where it cannot be told.
std::optional<uint64_t> size_of_path(const std::filesystem::path& path);

}  // namespace graft
