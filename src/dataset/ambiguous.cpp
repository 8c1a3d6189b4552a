#include "dataset/ambiguous.h"

#include <algorithm>
#include <iterator>
#include <optional>

#include "base/fail.h"
#include "base/file.h"
#include "dataset/labels.h"
#include "dataset/layout.h"
#include "dataset/split_names.h"

namespace graft {

std::string fold(std::string_view name) { return folded_label(name); }

Folders content_of(const Folder& folder) {
  Folders out;
  for (const auto& child : folder.folders)
    if (child->has_content()) out.push_back(child.get());
  return out;
}

bool has_direct_images(const Folder& folder) {
  const Folder& real = folder.link_to != nullptr ? *folder.link_to : folder;
  return !real.images.empty() || !real.unread.empty() || !real.videos.empty();
}

std::set<std::string> class_keys(const Folder& folder) {
  std::set<std::string> keys;
  for (const Folder* child : content_of(folder)) keys.insert(fold(child->name()));
  return keys;
}

std::set<std::string> shared(const std::set<std::string>& a, const std::set<std::string>& b) {
  std::set<std::string> out;
  std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::inserter(out, out.end()));
  return out;
}

std::string names(const Folders& folders, size_t most) {
  std::string out;
  for (size_t i = 0; i < std::min(folders.size(), most); ++i) {
    if (i > 0) out += i + 1 == folders.size() ? " and " : ", ";
    out += printable(folders[i]->name()) + "/";
  }
  if (folders.size() > most) out += fmt::format(" … ({} in all)", folders.size());
  return out;
}

void refuse_splits_inside(const fs::path& at, const Folders& kids) {
  const Folder* first = nullptr;
  const Folder* whole = nullptr;  // has train/ and test/, and so says it alone
  size_t count = 0;
  for (const Folder* kid : kids) {
    const std::set<std::string> keys = class_keys(*kid);
    std::set<Split> splits;
    for (const std::string& name : keys)
      if (const std::optional<Split> split = split_of_name(name)) splits.insert(*split);
    const bool all = std::all_of(keys.begin(), keys.end(), [](const std::string& name) {
      return split_of_name(name).has_value();
    });
    if (has_direct_images(*kid) || keys.empty() || !all) continue;
    if (count++ == 0) first = kid;
    if (splits.size() > 1 && whole == nullptr) whole = kid;
  }
  if (count < 2 && whole == nullptr) return;
  const Folder& one = whole != nullptr ? *whole : *first;
  const std::set<std::string> inside = class_keys(one);
  fail(ErrorKind::input,
       "{}: there are splits inside the classes ({}/{}/); turn them round ({}/{}/); {}",
       printable(at), printable(one.name()), *inside.begin(), *inside.rbegin(),
       printable(one.name()), kExpectedLayout);
}

void refuse_annotations(const fs::path& at, const Folders& kids) {
  std::set<std::string> keys;
  for (const Folder* kid : kids) keys.insert(fold(kid->name()));
  if (!keys.contains("images")) return;
  for (const char* other : {"labels", "masks", "annotations", "annots", "segmentation"})
    if (keys.contains(other))
      fail(ErrorKind::input,
           "{}: images/ and {}/ are no classes but images and annotations of them; {}",
           printable(at), other, kExpectedLayout);
}

void refuse_shared_subfolders(const fs::path& at, const Folders& kids) {
  if (kids.size() < 2) return;
  refuse_splits_inside(at, kids);
  refuse_annotations(at, kids);
  std::set<std::string> common = class_keys(*kids[0]);
  for (const Folder* kid : kids) {
    if (has_direct_images(*kid)) return;
    common = shared(common, class_keys(*kid));
  }
  if (common.size() < 2) return;
  if (std::all_of(common.begin(), common.end(),
                  [](const std::string& name) { return split_of_name(name).has_value(); }))
    fail(ErrorKind::input,
         "{}: there are splits inside the classes ({}/{}/); turn them round ({}/{}/); {}",
         printable(at), printable(kids[0]->name()), *common.begin(), *common.rbegin(),
         printable(kids[0]->name()), kExpectedLayout);
  fail(ErrorKind::input,
       "{}: {} all hold the folders {}: it is not clear which are the classes; name one of them "
       "as DATA, call them train/, val/ and test/, or write a CSV manifest; {}",
       printable(at), names(kids), label_list({common.begin(), common.end()}), kExpectedLayout);
}

void refuse_split_letters(const fs::path& at, const Folders& kids) {
  std::set<Split> splits;
  std::set<char> letters;
  for (const Folder* kid : kids) {
    std::string name = kid->name();
    if (name.size() < 2) return;
    const char letter = name.back();
    name.pop_back();
    if (letter < 'A' || letter > 'Z') return;
    const std::optional<Split> split = split_of_name(name);
    if (!split) return;
    splits.insert(*split);
    letters.insert(letter);
  }
  if (splits.size() < 2 || letters.size() < 2) return;
  const std::string name = kids[0]->name();
  fail(ErrorKind::input,
       "{}: {} seem to name splits and classes at once; move the images into {}/{}/ and so on; {}",
       printable(at), names(kids), printable(name.substr(0, name.size() - 1)), name.back(),
       kExpectedLayout);
}

std::string shared_subfolders_note(const fs::path& at, const Folders& kids) {
  for (size_t i = 0; i < kids.size(); ++i) {
    const std::set<std::string> keys = class_keys(*kids[i]);
    for (size_t k = i + 1; k < kids.size(); ++k) {
      const std::set<std::string> both = shared(keys, class_keys(*kids[k]));
      // One alone may be how somebody keeps images within each class (cat/images/).
      const bool several = keys.size() > 1 || class_keys(*kids[k]).size() > 1;
      if (both.empty() || (both.size() == 1 && !several)) continue;
      return fmt::format(
          "{}: {}/ and {}/ both hold the folder{} {}, read as parts of these classes; if such "
          "folders are the classes, write a CSV manifest",
          printable(at), printable(kids[i]->name()), printable(kids[k]->name()),
          both.size() == 1 ? "" : "s", label_list({both.begin(), both.end()}));
    }
  }
  return {};
}

}  // namespace graft
