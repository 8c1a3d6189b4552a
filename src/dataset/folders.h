// Walking folders of images.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graft/context.h"

namespace graft {

/// Entries of a folder, sorted by bytes, without hidden ones and those that systems and tools leave
/// behind (@eaDir, __MACOSX, Thumbs.db …). Throws Error(io).
std::vector<std::filesystem::path> list_folder(const std::filesystem::path& folder);

/// Hidden, or left there by a system or a tool.
bool is_left_behind(const std::string& name);

/// What is below a folder: image files, sorted; links followed, each real folder entered once. An
/// archive is a folder here too.
struct Walked {
  std::vector<std::filesystem::path> images;
  std::map<std::string, size_t> others;  ///< files of other kinds: suffix → count
  size_t maps = 0;                       ///< that 'graft predict --explain' drew; left out
};
Walked walk_images(const std::filesystem::path& folder, const RunContext& context = {});

/// The suffix in lower case, with its dot; empty where there is none.
std::string lower_suffix(const std::filesystem::path& path);

/// A folder and what is below it, hidden entries and tools' leavings left out.
struct Folder {
  std::filesystem::path path;                 ///< as reached, by links or not
  std::vector<std::filesystem::path> images;  ///< directly in it, by suffix, sorted
  std::vector<std::filesystem::path> unread;  ///< image files of formats that are not read
  std::map<std::string, size_t> videos;       ///< directly in it: suffix → count
  size_t maps = 0;  ///< directly in it: drawn by 'graft predict --explain', and left out
  /// Other files directly in it: suffix → count.
  std::map<std::string, size_t> others;
  std::vector<std::unique_ptr<Folder>> folders;  ///< sorted by path
  /// A link to a folder of the same tree, which is not entered again; null: none.
  const Folder* link_to = nullptr;
  bool linked = false;  ///< reached by a link

  [[nodiscard]] std::string name() const { return path.filename().string(); }
  [[nodiscard]] size_t images_below() const;
  /// Of each suffix: image files that are not read, and videos.
  [[nodiscard]] std::map<std::string, size_t> unread_below() const;
  [[nodiscard]] std::map<std::string, size_t> videos_below() const;
  /// Anything that is or should be an image, here or below, or where links lead.
  [[nodiscard]] bool has_content() const;

 private:
  [[nodiscard]] bool has_own_content() const;
};

class ScanProgress;

/// A whole tree of folders, read once.
class FolderTree {
 public:
  /// Throws Error(io) for a folder that cannot be read.
  explicit FolderTree(const std::filesystem::path& root, const RunContext& context = {});

  [[nodiscard]] const Folder& root() const { return *root_; }
  /// The folder that the file a link points to lies in; null: it is outside of the tree.
  [[nodiscard]] const Folder* folder_of_target(const std::filesystem::path& link) const;
  /// Hidden folders with images in them, links back to a folder above them, and the like: a line
  /// each.
  [[nodiscard]] const std::vector<std::string>& notes() const { return notes_; }
  /// Images that are links.
  [[nodiscard]] const std::vector<std::filesystem::path>& image_links() const {
    return image_links_;
  }

 private:
  using Identity = std::pair<uint64_t, uint64_t>;  // device, inode
  struct Link {
    Folder* parent;
    std::filesystem::path path;
  };
  std::unique_ptr<Folder> read(const std::filesystem::path& path, Folder* parent);
  static void add_other(Folder& folder, const std::filesystem::path& file);
  void follow(const Link& link);
  void skip_hidden(const std::filesystem::path& path, bool is_folder);
  [[nodiscard]] bool is_above(const Folder* above, const Folder* below) const;

  std::unique_ptr<Folder> root_;
  std::map<Identity, Folder*> known_;
  std::set<Identity> above_;  // the folders that hold the root
  std::map<const Folder*, Folder*> parents_;
  std::vector<Link> links_;  // to be followed once all real folders are known
  std::vector<std::filesystem::path> image_links_;
  size_t hidden_images_ = 0;
  std::filesystem::path first_hidden_;
  std::vector<std::string> notes_;
  ScanProgress* progress_ = nullptr;  // while it is read
};

}  // namespace graft
