#include "dataset/layout.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "dataset/ambiguous.h"
#include "dataset/folders.h"
#include "dataset/labels.h"
#include "dataset/split_names.h"
#include "dataset/suffix_counts.h"
#include "graft/explain.h"
#include "image/formats.h"

namespace graft {
namespace {

/// Names of folders of images that say nothing about what is on them.
constexpr std::array<std::string_view, 14> kPlainNames = {
    "images", "image", "imgs",   "img",      "jpg",  "jpeg", "jpegimages",
    "png",    "all",   "photos", "pictures", "data", "raw",  "unknown"};

bool is_plain(const std::string& name) {
  return std::find(kPlainNames.begin(), kPlainNames.end(), fold(name)) != kPlainNames.end();
}

std::string images_text(size_t count) {
  return fmt::format("{} {}", count, count == 1 ? "image" : "images");
}

std::string own_name(const fs::path& folder) {
  const fs::path path = fs::absolute(folder).lexically_normal();
  return (path.has_filename() ? path : path.parent_path()).filename().string();
}

/// Wrapper folders are seen through: a folder whose only content is a folder of folders stands for
/// that one. One that is called as a split is left, unless its parent is called the same. Folders
/// on the way, the last included, are added to `way`.
const Folder* see_through(const Folder* at, bool through_splits, Folders& way) {
  for (;;) {
    way.push_back(at);
    const Folders kids = content_of(*at);
    if (kids.size() != 1) return at;
    const Folder* only = kids[0];
    if (only->link_to != nullptr || has_direct_images(*only)) return at;
    const bool same = fold(only->name()) == fold(own_name(at->path));
    if (!same && !through_splits && split_of_name(only->name())) return at;
    at = only;
  }
}

/// Names of images that carry their labels, as in cat.1.jpg: the labels, where there are a few.
std::vector<std::string> labels_in_names(const std::vector<fs::path>& images) {
  constexpr size_t kMaxLabels = 50;
  std::set<std::string> labels;
  for (const fs::path& image : images) {
    const std::string name = image.filename().string();
    size_t end = 0;
    while (end < name.size() && (std::isalpha(static_cast<unsigned char>(name[end])) != 0)) ++end;
    if (end == 0 || name.find_first_of("0123456789", end) == std::string::npos) return {};
    labels.insert(name.substr(0, end));
  }
  if (labels.size() < 2 || labels.size() > kMaxLabels) return {};
  return {labels.begin(), labels.end()};
}

class Reader {
 public:
  Reader(const fs::path& data, const RunContext& context)
      : context_(context), data_(data), tree_(without_slash(data), context) {
    layout_.notes = tree_.notes();
  }

  Layout read() {
    at_ = see_through(&tree_.root(), /*through_splits=*/false, seen_through_);
    layout_.root = at_->path;
    Folders kids = content_of(*at_);
    leave_out_maps(kids);
    if (kids.empty()) refuse_flat(*at_, at_->path);
    refuse_split_letters(at_->path, kids);
    Folders splits;
    Folders rest;
    for (const Folder* kid : kids) {
      if (split_of_name(kid->name()))
        splits.push_back(kid);
      else if (!is_for_prediction(kid->name()))
        rest.push_back(kid);
    }
    if (!splits.empty() && rest.empty())
      read_splits(splits);
    else if (are_classes(splits, rest))
      read_classes(kids);
    else
      fail(ErrorKind::input,
           "{}: {} could be splits, but beside them lies {}: a folder of splits holds nothing "
           "else; move that away, or name the splits apart (DATA/train with `val` or `test`); {}",
           printable(data_), names(splits), names(rest), kExpectedLayout);
    find_vanished();
    note_advice();
    note_animations();
    note_leftovers();
    note_links();
    check_loose();
    return std::move(layout_);
  }

 private:
  static fs::path without_slash(const fs::path& data) {
    return data.has_filename() ? data : data.parent_path();
  }

  /// With folders beside them that are no splits, folders called as splits are classes if they are
  /// built as those are.
  static bool are_classes(const Folders& splits, const Folders& rest) {
    Folders nested;
    std::copy_if(splits.begin(), splits.end(), std::back_inserter(nested),
                 [](const Folder* folder) { return !has_direct_images(*folder); });
    if (nested.empty())
      return std::all_of(splits.begin(), splits.end(), [](const Folder* folder) {
        return labels_in_names(folder->images).empty();
      });
    if (nested.size() > 1 || splits.size() > 1) return false;
    const std::set<std::string> inner = class_keys(*nested[0]);
    return std::none_of(rest.begin(), rest.end(), [&](const Folder* folder) {
      return has_direct_images(*folder) || !shared(inner, class_keys(*folder)).empty();
    });
  }

  [[noreturn]] void refuse_flat(const Folder& folder, const fs::path& name) const {
    if (folder.images.empty() && folder.unread.empty())
      fail(ErrorKind::input, "{}: no class folder with images in it{}; {}", printable(name),
           noted(layout_.notes), kExpectedLayout);
    const std::vector<std::string> labels = labels_in_names(folder.images);
    const size_t count = folder.images.size() + folder.unread.size();
    if (!labels.empty())
      fail(ErrorKind::input,
           "{}: its {} images lie in no class folders, but their names seem to begin with their "
           "class ({}): move them into folders of that name ({}/{}), or write a CSV manifest; {}",
           printable(name), count, label_list(labels), printable(labels[0]),
           printable(folder.images[0].filename()), kExpectedLayout);
    fail(ErrorKind::input, "{}: its {} images lie in no class folders, so they have no labels; {}",
         printable(name), count, kExpectedLayout);
  }

  struct SplitFolder {
    const Folder* folder;   ///< as named
    const Folder* classes;  ///< behind wrappers; its folders are the classes
    Split split;
  };

  void read_splits(const Folders& folders) {
    std::vector<SplitFolder> splits;
    for (const Folder* folder : folders) {
      const Folder* contents = folder->link_to != nullptr ? follow_split(*folder) : folder;
      const SplitFolder split{folder, see_through(contents, /*through_splits=*/true, seen_through_),
                              *split_of_name(folder->name())};
      for (const SplitFolder& other : splits)
        if (other.split == split.split)
          fail(ErrorKind::input,
               "{}: {}/ and {}/ both name the {} split; keep one of them (or join them); {}",
               printable(at_->path), printable(other.folder->name()), printable(folder->name()),
               to_string(split.split), kExpectedLayout);
      splits.push_back(split);
    }
    std::erase_if(splits, [&](const SplitFolder& split) {
      if (has_labels(split, splits)) return false;
      std::erase(seen_through_, split.classes);  // its images are told of already
      return true;
    });
    // Validation and test images may be few: each need share classes with the training ones alone.
    const auto train = std::find_if(splits.begin(), splits.end(), [](const SplitFolder& split) {
      return split.split == Split::train;
    });
    const SplitFolder reference = train != splits.end() ? *train : splits[0];
    refuse_annotations(at_->path, content_of(*reference.classes));
    for (const SplitFolder& split : splits)
      if (split.folder != reference.folder) require_shared_classes(reference, split);
    if (std::all_of(splits.begin(), splits.end(), [](const SplitFolder& split) {
          const Folders kids = content_of(*split.classes);
          return kids.size() == 1 && is_plain(kids[0]->name());
        }))
      fail(ErrorKind::input, "{}: {} hold one folder of images ({}/) in place of one per class; {}",
           printable(at_->path), names(folders),
           printable(content_of(*splits[0].classes)[0]->name()), kExpectedLayout);
    std::sort(splits.begin(), splits.end(),
              [](const SplitFolder& a, const SplitFolder& b) { return a.split < b.split; });
    Folders named;
    for (const SplitFolder& split : splits) {
      named.push_back(split.folder);
      note_empty(*split.classes);
      add_classes(content_of(*split.classes), split.split);
    }
    layout_.understood = fmt::format("{} {}", names(named), named.size() == 1 ? "split" : "splits");
    for (const Folder* kid : content_of(*at_))
      if (!split_of_name(kid->name()))
        layout_.notes.push_back(
            fmt::format("{}: images to be predicted, by its name; left out", printable(kid->path)));
  }

  /// A split folder that is a link to another folder of the tree has its images once more.
  const Folder* follow_split(const Folder& link) {
    layout_.notes.push_back(fmt::format("{}: a link to {}, so both hold the same images",
                                        printable(link.path), printable(link.link_to->path)));
    linked_trees_.push_back(std::make_unique<FolderTree>(link.path, context_));
    return &linked_trees_.back()->root();
  }

  /// Whether a split's images lie in class folders. Test images without labels are common and left
  /// out; without training or validation images in their place nothing can go on.
  bool has_labels(const SplitFolder& split, const std::vector<SplitFolder>& all) {
    const Folders kids = content_of(*split.classes);
    const auto train = std::find_if(all.begin(), all.end(), [](const SplitFolder& other) {
      return other.split == Split::train;
    });
    const bool flat = kids.empty();
    const bool one_odd = kids.size() == 1 && split.split != Split::train && train != all.end() &&
                         !class_keys(*train->classes).contains(fold(kids[0]->name()));
    if (!flat && !one_odd) return true;
    if (split.split == Split::test && all.size() > 1) {
      layout_.notes.push_back(fmt::format("{}: {} in no class folders, so without labels; left out",
                                          printable(split.folder->path),
                                          images_text(split.classes->images_below())));
      return false;
    }
    if (flat) refuse_flat(*split.classes, split.classes->path);
    fail(ErrorKind::input,
         "{}: its images lie in {}/, which is none of the training classes ({}), so they have no "
         "labels; sort them into class folders, or move {}/ away; {}",
         printable(split.folder->path), printable(kids[0]->name()),
         label_list(class_names(*train->classes)), printable(split.folder->name()),
         kExpectedLayout);
  }

  static std::vector<std::string> class_names(const Folder& folder) {
    std::vector<std::string> out;
    for (const Folder* kid : content_of(folder)) out.push_back(kid->name());
    return out;
  }

  void require_shared_classes(const SplitFolder& a, const SplitFolder& b) const {
    if (!shared(class_keys(*a.classes), class_keys(*b.classes)).empty()) return;
    fail(ErrorKind::input, "{}: {}/ ({}) and {}/ ({}) have no class folder in common; {}",
         printable(at_->path), printable(a.folder->name()), label_list(class_names(*a.classes)),
         printable(b.folder->name()), label_list(class_names(*b.classes)), kExpectedLayout);
  }

  void read_classes(const Folders& kids) {
    refuse_shared_subfolders(at_->path, kids);
    if (std::string note = shared_subfolders_note(at_->path, kids); !note.empty())
      layout_.notes.push_back(std::move(note));
    add_classes(kids, Split::unassigned);
    note_empty(*at_);
    layout_.understood = "one folder per class";
    if (at_ != &tree_.root()) layout_.understood += fmt::format(" in {}", printable(at_->path));
  }

  /// What 'graft predict --explain' wrote into the images' own folder.
  void leave_out_maps(Folders& kids) {
    std::erase_if(kids, [&](const Folder* kid) {
      if (kid->images.empty() || !is_png_of(kid->images.front(), kMapSoftware)) return false;
      layout_.notes.push_back(fmt::format("{}: maps that 'graft predict --explain' drew; left out",
                                          printable(kid->path)));
      return true;
    });
  }

  void add_classes(const Folders& kids, Split split) {
    std::map<std::string, const Folder*> seen;
    for (const Folder* kid : kids) {
      const std::string where = printable(kid->path);
      require_label(kid->name(), where);
      const std::string label = canonical_label(kid->name());
      const auto [at, fresh] = seen.emplace(label, kid);
      if (!fresh)
        fail(ErrorKind::input,
             "{} and {}: the same class name but for spaces or the form of accents; move the "
             "images into one of the two",
             printable(at->second->path), where);
      if (label != kid->name())
        layout_.notes.push_back(fmt::format("{}: read as the class '{}'", where, label));
      const Folder* contents = kid;
      if (kid->link_to != nullptr) {
        links_.emplace_back(kid, label);
        linked_trees_.push_back(std::make_unique<FolderTree>(kid->path, context_));
        contents = &linked_trees_.back()->root();
      }
      const size_t before = layout_.images.size();
      add_images(*contents, label, split);
      if (layout_.images.size() == before)
        fail(ErrorKind::input,
             "{}: none of this class's files can be read ({}); {}, or move the folder away", where,
             suffixes(merged(contents->unread_below(), contents->videos_below())),
             advice_for(merged(contents->unread_below(), contents->videos_below())));
      note_unread(*contents, label, where);
    }
  }

  /// Names what is not read of a class, and what to do.
  void note_unread(const Folder& folder, const std::string& label, const std::string& where) {
    std::map<std::string, size_t> counts = merged(folder.unread_below(), folder.videos_below());
    if (counts.empty()) return;
    layout_.notes.push_back(fmt::format("{}: {} not read and left out", where, suffixes(counts)));
    layout_.unread_counts[label] = merged(layout_.unread_counts[label], counts);
  }

  void add_images(const Folder& folder, const std::string& label, Split split) {
    labels_[&folder].insert(label);
    for (const fs::path& image : folder.images) layout_.images.push_back({image, label, split});
    for (const fs::path& file : folder.unread)
      layout_.unread.push_back({file, label, split, why_unread(file)});
    for (const auto& child : folder.folders) {
      if (child->link_to != nullptr)
        links_.emplace_back(child.get(), label);
      else
        add_images(*child, label, split);
      if (child->linked && child->link_to == nullptr)
        layout_.notes.push_back(
            fmt::format("{}: a link out of the class folder; followed", printable(child->path)));
    }
  }

  static std::string why_unread(const fs::path& file) {
    const UnreadKind* kind = unread_kind(lower_suffix(file));
    return kind == nullptr
               ? "an image by its content, not by its name; give it the suffix of its format"
               : fmt::format("{} are not read; {}", kind->what, kind->advice);
  }

  /// All labels of a folder and those below it.
  void labels_below(const Folder& folder, std::set<std::string>& out) const {
    if (const auto at = labels_.find(&folder); at != labels_.end())
      out.insert(at->second.begin(), at->second.end());
    for (const auto& child : folder.folders) labels_below(*child, out);
  }

  /// Links between class folders: an image has one class.
  void note_links() {
    for (const auto& [link, label] : links_) {
      std::set<std::string> others;
      labels_below(*link->link_to, others);
      others.erase(label);
      if (!others.empty()) refuse_link(link->path, link->link_to->path, label, *others.begin());
    }
    std::map<fs::path, const std::string*> label_of;
    if (tree_.image_links().empty()) return;
    for (const LabelledImage& image : layout_.images) label_of.emplace(image.path, &image.label);
    size_t outside = 0;
    for (const fs::path& link : tree_.image_links()) {
      const auto mine = label_of.find(link);
      if (mine == label_of.end()) continue;
      const Folder* target = tree_.folder_of_target(link);
      if (target == nullptr) {
        ++outside;
        continue;
      }
      const auto labels = labels_.find(target);
      if (labels != labels_.end() && !labels->second.contains(*mine->second))
        refuse_link(link, target->path, *mine->second, *labels->second.begin());
    }
    if (outside > 0)
      layout_.notes.push_back(fmt::format("{}: {}: {} out of this folder", printable(at_->path),
                                          images_text(outside), outside == 1 ? "a link" : "links"));
  }

  [[noreturn]] static void refuse_link(const fs::path& link, const fs::path& target,
                                       const std::string& label, const std::string& other) {
    fail(ErrorKind::input,
         "{}: a link into {}: its images would be '{}' and '{}' at once; remove the link",
         printable(link), printable(target), label, other);
  }

  /// Images where class folders should be: a few are left out, but they are not to be the most.
  void check_loose() {
    for (const Folder* folder : seen_through_) {
      if (folder->images.empty() || folder->link_to != nullptr) continue;
      if (folder->images.size() > layout_.images.size()) refuse_flat(*folder, folder->path);
      layout_.notes.push_back(fmt::format("{}: {} outside the class folders; left out",
                                          printable(folder->path),
                                          images_text(folder->images.size())));
    }
  }

  /// Folders where a class would be, without an image.
  void note_empty(const Folder& folder) {
    for (const auto& child : folder.folders)
      if (!child->has_content() && child->maps == 0)
        empty_.emplace_back(
            canonical_label(child->name()),
            fmt::format(
                "{}: no image in this class folder{}", printable(child->path),
                child->others.empty() ? "" : fmt::format(" ({})", suffixes(child->others))));
  }

  /// Those that another split has images of are no loss.
  void find_vanished() {
    std::set<std::string> there;
    for (const LabelledImage& image : layout_.images) there.insert(image.label);
    for (auto& [label, line] : empty_) {
      layout_.notes.push_back(line + "; left out");
      if (!there.contains(label)) layout_.empty.push_back(std::move(line));
    }
  }

  static void count_others(const Folder& folder, std::map<std::string, size_t>& out) {
    for (const auto& [suffix, count] : folder.others) out[suffix] += count;
    for (const auto& child : folder.folders) count_others(*child, out);
  }

  /// What to do about files that are not read: once for all classes.
  void note_advice() {
    std::set<std::string> suffixes;
    for (const auto& [label, counts] : layout_.unread_counts)
      for (const auto& [suffix, count] : counts) suffixes.insert(suffix);
    std::map<std::string, std::string> notes;  // by what they are about
    for (const std::string& suffix : suffixes) {
      const UnreadKind* kind = unread_kind(suffix);
      std::string& names = notes[kind == nullptr ? "" : std::string(kind->what)];
      names += names.empty() ? suffix : ", " + suffix;
    }
    for (const auto& [what, names] : notes)
      layout_.notes.push_back(
          what.empty() ? "images by their content, but not by their names, are not read: give them "
                         "the suffix of their format"
                       : fmt::format("{} ({}) are not read: {}", what, names,
                                     unread_kind(names.substr(0, names.find(',')))->advice));
  }

  /// Nobody is to find out later that an animation counts as its first frame.
  void note_animations() {
    const auto gifs =
        std::count_if(layout_.images.begin(), layout_.images.end(), [](const LabelledImage& image) {
          return format_of_suffix(lower_suffix(image.path)) == ImageFormat::gif;
        });
    if (gifs > 0)
      layout_.notes.push_back(
          fmt::format("{}: {} .gif, of which the first frame is read", printable(at_->path), gifs));
  }

  void note_leftovers() {
    std::map<std::string, size_t> others;
    for (const auto& child : at_->folders)
      if (child->has_content()) count_others(*child, others);
    if (!others.empty())
      layout_.notes.push_back(
          fmt::format("{}: files that are no images: {}", printable(at_->path), suffixes(others)));
  }

  const RunContext& context_;
  fs::path data_;
  FolderTree tree_;
  const Folder* at_ = nullptr;  // behind wrappers
  Layout layout_;
  std::vector<std::pair<std::string, std::string>> empty_;  // label, line
  Folders seen_through_;  // where images would lie outside of class folders
  std::map<const Folder*, std::set<std::string>> labels_;
  std::vector<std::pair<const Folder*, std::string>> links_;  // to folders of the tree; own label
  std::vector<std::unique_ptr<FolderTree>> linked_trees_;
};

}  // namespace

std::string noted(const std::vector<std::string>& notes) {
  constexpr size_t kShown = 3;
  if (notes.empty()) return "";
  const auto last = notes.begin() + static_cast<long>(std::min(notes.size(), kShown));
  return fmt::format(" (noted: {}{})", fmt::join(notes.begin(), last, "; "),
                     notes.size() > kShown ? "; …" : "");
}

Layout read_layout(const fs::path& data, const RunContext& context) {
  return Reader(data, context).read();
}

}  // namespace graft
