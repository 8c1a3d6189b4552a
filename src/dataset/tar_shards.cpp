#include "dataset/tar_shards.h"

#include <algorithm>
#include <charconv>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "base/json.h"
#include "base/progress.h"
#include "base/threads.h"
#include "dataset/dataset.h"
#include "dataset/folders.h"
#include "dataset/labels.h"
#include "dataset/split_names.h"
#include "dataset/table_file.h"
#include "image/formats.h"

namespace graft {
namespace {

constexpr uint64_t kMostLabelBytes = uint64_t{1} << 20U;  // of a .json, with all else it says
constexpr const char* kExpected =
    "expected beside each image (0001.jpg) its class, as text or number in 0001.cls, or under "
    "\"label\", \"class\" or \"cls\" in 0001.json";

/// "n01/0007.seg.png" → "n01/0007" and ".seg.png"; an empty key where there is none.
std::pair<std::string_view, std::string> key_and_suffix(std::string_view name) {
  const size_t slash = name.rfind('/');
  const size_t start = slash == std::string_view::npos ? 0 : slash + 1;
  const size_t dot = name.find('.', start);
  if (dot == std::string_view::npos || dot == start) return {{}, {}};
  std::string suffix(name.substr(dot));
  std::transform(suffix.begin(), suffix.end(), suffix.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return {name.substr(0, dot), suffix};
}

bool is_image(const std::string& suffix) { return format_of_suffix(suffix).has_value(); }

/// The members of one sample.
struct Members {
  std::vector<const Archive::Member*> images;
  const Archive::Member* cls = nullptr;
  const Archive::Member* json = nullptr;
  bool repeated = false;
  const UnreadKind* unread = nullptr;
  const Archive::Member* unread_image = nullptr;
};

struct Samples {
  std::map<std::string_view, Members> by_key;
  size_t further = 0;  // images of other roles, "0007.seg.png"
};

Samples samples_of(const Archive& archive) {
  Samples out;
  for (const Archive::Member& member : archive.members()) {
    const auto [key, suffix] = key_and_suffix(member.name);
    if (key.empty() || is_left_behind(fs::path(member.name).filename().string())) continue;
    if (is_image(suffix)) {
      out.by_key[key].images.push_back(&member);
    } else if (suffix == ".cls") {
      out.by_key[key].cls = &member;
    } else if (suffix == ".json") {
      out.by_key[key].json = &member;
    } else if (const UnreadKind* kind = unread_kind(suffix); kind != nullptr && kind->image) {
      out.by_key[key].unread = kind;
      out.by_key[key].unread_image = &member;
    } else {
      if (is_image(lower_suffix(suffix))) ++out.further;
      continue;
    }
    if (archive.repeated().contains(member.name)) out.by_key[key].repeated = true;
  }
  return out;
}

/// A label as the shard has it: a number or a name.
struct Label {
  std::string text;
  std::optional<int64_t> number;
};

Label make_label(std::string_view text) {
  const auto is_space = [](char c) { return c == ' ' || (c >= '\t' && c <= '\r'); };
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  Label label{std::string(text), std::nullopt};
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size()) {
    label.number = value;
    label.text = std::to_string(value);
  }
  return label;
}

std::string text_of(const Archive& archive, const Archive::Member& member) {
  if (member.size > kMostLabelBytes) fail(ErrorKind::input, "{} is too large", member.name);
  const std::vector<std::byte> bytes = archive.read(member);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// Throws Error(input) that says why there is none.
Label label_of(const Archive& archive, const Members& sample) {
  if (sample.cls != nullptr) {
    Label label = make_label(text_of(archive, *sample.cls));
    if (label.text.empty()) fail(ErrorKind::input, "its .cls is empty");
    require_label(label.text, "its .cls");
    return label;
  }
  if (sample.json == nullptr) fail(ErrorKind::input, "no label beside it (.cls or .json)");
  const nlohmann::json document = parse_json(text_of(archive, *sample.json), "its .json");
  if (document.is_object())
    for (const char* key : {"label", "class", "cls"}) {
      const auto at = document.find(key);
      if (at == document.end()) continue;
      if (at->is_number_integer()) return make_label(at->dump());
      if (!at->is_string()) continue;
      Label label = make_label(at->get<std::string>());
      if (label.text.empty()) continue;
      require_label(label.text, "its .json");
      return label;
    }
  fail(ErrorKind::input,
       "its .json has no label (a text or whole number under \"label\", \"class\" or \"cls\")");
}

/// What one shard holds, before labels are looked up.
struct TarShard {
  struct Image {
    fs::path path;
    Label label;
  };
  std::vector<Image> images;
  std::vector<SkippedImage> skipped;
  size_t without_image = 0;
  size_t further = 0;
  std::vector<std::string> notes;
};

TarShard read_shard(const fs::path& file, const RunContext& context) {
  const std::optional<InArchive> inside = find_in_archive(file, context);
  if (!inside)
    fail(ErrorKind::input, "{}: no tar archive; expected shards as WebDataset makes them",
         printable(file));
  const Archive& archive = *inside->archive;
  TarShard out;
  out.notes = archive.notes();
  const Samples samples = samples_of(archive);
  out.further = samples.further;
  for (const auto& [key, sample] : samples.by_key) {
    const auto skip = [&](const Archive::Member& member, std::string why) {
      out.skipped.push_back({file / member.name, "", Split::unassigned, std::move(why)});
    };
    if (sample.images.empty()) {
      if (sample.unread_image != nullptr)
        skip(*sample.unread_image,
             fmt::format("{} are not read; {}", sample.unread->what, sample.unread->advice));
      else
        ++out.without_image;
      continue;
    }
    const Archive::Member& image = *sample.images[0];
    if (sample.repeated || sample.images.size() > 1) {
      skip(image, sample.repeated ? "the shard has two samples of this name"
                                  : "its sample has more than one image");
      continue;
    }
    try {
      out.images.push_back({file / image.name, label_of(archive, sample)});
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::input) throw;
      skip(image, error.what());
    }
  }
  return out;
}

/// classes.txt beside the shards: a class a line, the first of which is number 0.
class ClassList {
 public:
  explicit ClassList(std::span<const fs::path> shards) {
    std::set<fs::path> folders;
    for (const fs::path& shard : shards) folders.insert(shard.parent_path());
    for (const fs::path& folder : folders) {
      const fs::path file = folder / "classes.txt";
      std::error_code error;
      if (!fs::exists(file, error)) continue;
      std::vector<std::string> names = read(file);
      if (!file_.empty() && names != names_)
        fail(ErrorKind::input, "{} and {} list different classes; keep one of them", name(),
             printable(file));
      names_ = std::move(names);
      file_ = file;
    }
  }

  [[nodiscard]] bool there() const { return !file_.empty(); }
  [[nodiscard]] std::string name() const { return printable(file_); }
  [[nodiscard]] const std::vector<std::string>& names() const { return names_; }

  [[nodiscard]] std::string resolve(const Label& label, const fs::path& image) const {
    if (!there()) return canonical_label(label.text);
    if (const int at = find_label(names_, label.text); at >= 0)
      return names_[static_cast<size_t>(at)];
    if (!label.number)
      fail(ErrorKind::input, "{}: class '{}' is not in {}{}", printable(image),
           printable(fs::path(label.text)), name(), near_label_hint(names_, label.text));
    if (*label.number < 0 || static_cast<size_t>(*label.number) >= names_.size())
      fail(ErrorKind::input,
           "{}: its class has the number {}, and {} has the classes 0 to {}, a line each; do the "
           "numbers begin with 1?",
           printable(image), *label.number, name(), names_.size() - 1);
    return names_[static_cast<size_t>(*label.number)];
  }

 private:
  static std::vector<std::string> read(const fs::path& file) {
    std::vector<std::string> names;
    std::string text = read_text_file(file);
    if (text.starts_with("\xEF\xBB\xBF")) text.erase(0, 3);
    while (text.ends_with('\n') || text.ends_with('\r')) text.pop_back();
    for (std::string_view rest = text; !rest.empty();) {
      const size_t end = std::min(rest.find('\n'), rest.size());
      std::string_view line = rest.substr(0, end);
      rest.remove_prefix(std::min(end + 1, rest.size()));
      if (line.ends_with('\r')) line.remove_suffix(1);
      const std::string where = fmt::format("{}:{}", printable(file), names.size() + 1);
      require_label(line, where);
      names.push_back(canonical_label(line));
    }
    if (names.empty())
      fail(ErrorKind::input, "{}: empty; expected a class a line", printable(file));
    require_distinct(names, printable(file));
    std::vector<std::string> sorted = names;
    std::sort(sorted.begin(), sorted.end());
    if (const auto twice = std::adjacent_find(sorted.begin(), sorted.end()); twice != sorted.end())
      fail(ErrorKind::input, "{}: class '{}' stands there twice", printable(file), *twice);
    return names;
  }

  fs::path file_;
  std::vector<std::string> names_;
};

/// The split that a shard's name or folder says: "imagenet-train-0007.tar", "val/0007.tar".
std::optional<Split> split_of_shard(const fs::path& shard) {
  std::optional<Split> found;
  std::string stem = shard.filename().string();
  stem = stem.substr(0, stem.find('.'));
  stem += '-';
  for (size_t start = 0, end = 0; (end = stem.find_first_of("-_.", start)) != std::string::npos;
       start = end + 1) {
    const std::optional<Split> split = split_of_name(stem.substr(start, end - start));
    if (!split) continue;
    if (found && found != split) return std::nullopt;
    found = split;
  }
  return found ? found : split_of_name(shard.parent_path().filename().string());
}

/// Of all shards. Names that all say the same say nothing: whoever takes val-*.tar for --test means
/// it so.
std::vector<Split> splits_of(std::span<const fs::path> shards) {
  std::vector<Split> out;
  const fs::path* named = nullptr;
  const fs::path* nameless = nullptr;
  for (const fs::path& shard : shards) {
    const std::optional<Split> split = split_of_shard(shard);
    (split ? named : nameless) = &shard;
    out.push_back(split.value_or(Split::unassigned));
  }
  if (named != nullptr && nameless != nullptr)
    fail(ErrorKind::input,
         "{}: by its name of a split, which {} beside it is not; name the shards of each split "
         "apart (`val`, `test`), or all of them by their splits",
         printable(*named), printable(*nameless));
  if (std::adjacent_find(out.begin(), out.end(), std::not_equal_to<>()) == out.end())
    std::fill(out.begin(), out.end(), Split::unassigned);
  return out;
}

bool is_tar_name(const fs::path& path) {
  return lower_suffix(path) == ".tar" || is_archive_name(path);
}

/// Tar files alone, beside texts.
std::vector<fs::path> shards_alone(const fs::path& folder) {
  std::vector<fs::path> out;
  for (const fs::path& path : list_folder(folder)) {
    std::error_code error;
    if (has_image_extension(path) || fs::is_directory(path, error)) return {};
    if (lower_suffix(path) != ".zip" && is_tar_name(path)) out.push_back(path);
  }
  return out;
}

}  // namespace

std::vector<fs::path> tar_shards_in(const fs::path& folder) {
  std::error_code error;
  if (!fs::is_directory(folder, error)) return {};
  std::vector<fs::path> out = shards_alone(folder);
  if (!out.empty()) return out;
  for (const fs::path& path : list_folder(folder)) {
    if (!fs::is_directory(path, error)) {
      if (has_image_extension(path)) return {};
      continue;
    }
    const std::vector<fs::path> shards =
        split_of_name(path.filename().string()) ? shards_alone(path) : std::vector<fs::path>();
    if (shards.empty()) return {};
    out.insert(out.end(), shards.begin(), shards.end());
  }
  return out;
}

bool has_labelled_samples(const Archive& archive) {
  const Samples samples = samples_of(archive);
  return std::any_of(samples.by_key.begin(), samples.by_key.end(), [](const auto& entry) {
    const auto& [key, sample] = entry;
    return !sample.images.empty() &&
           (sample.cls != nullptr ||
            (sample.json != nullptr && key.find('/') == std::string_view::npos));
  });
}

Layout read_tar_shards(const fs::path& data, std::span<const fs::path> shards,
                       const RunContext& context) {
  const std::vector<Split> splits = splits_of(shards);
  const ClassList classes(shards);
  std::vector<TarShard> read(shards.size());
  ThreadPool pool(context.thread_count());
  const size_t at_once = 8 * static_cast<size_t>(pool.threads());
  Progress progress(context, "reading shards", shards.size(), "shards");
  for (size_t first = 0; first < shards.size(); first += at_once) {
    const size_t count = std::min(at_once, shards.size() - first);
    pool.parallel_for(count,
                      [&](size_t i) { read[first + i] = read_shard(shards[first + i], context); });
    progress.update(first + count);
    context.check_stop();
  }
  progress.finish();

  Layout layout;
  layout.root = data;
  const std::string name = printable(data);
  size_t without_image = 0;
  size_t further = 0;
  std::set<std::string> seen;
  std::optional<std::pair<std::string, fs::path>> numbered;
  std::optional<std::pair<std::string, fs::path>> named;
  for (size_t i = 0; i < shards.size(); ++i) {
    for (TarShard::Image& image : read[i].images) {
      std::string label = classes.resolve(image.label, image.path);
      (image.label.number ? numbered : named) = {image.label.text, image.path};
      seen.insert(label);
      layout.images.push_back({std::move(image.path), std::move(label), splits[i]});
    }
    for (SkippedImage& image : read[i].skipped) {
      image.split = splits[i];
      layout.unread.push_back(std::move(image));
    }
    layout.notes.insert(layout.notes.end(), read[i].notes.begin(), read[i].notes.end());
    without_image += read[i].without_image;
    further += read[i].further;
    read[i] = {};
  }
  if (layout.images.empty())
    fail(ErrorKind::input, "{}: no image with a label in {}{}; {}", name,
         shards.size() == 1 ? "it" : fmt::format("its {} shards", shards.size()),
         layout.unread.empty()
             ? ""
             : fmt::format(" ({}: {})", printable(layout.unread[0].path), layout.unread[0].why),
         kExpected);
  if (!classes.there() && numbered && named)
    fail(ErrorKind::input,
         "{}: classes are numbers ({} of {}) and names ({} of {}) at once; put a list of the names "
         "into classes.txt beside the shards, the first being number 0",
         name, numbered->first, printable(numbered->second), named->first,
         printable(named->second));
  if (classes.there() && seen.size() < classes.names().size())
    layout.notes.push_back(fmt::format("{}: {} of its {} classes have no image here",
                                       classes.name(), classes.names().size() - seen.size(),
                                       classes.names().size()));
  if (without_image > 0)
    layout.notes.push_back(
        fmt::format("{}: {} samples without an image; left out", name, without_image));
  if (further > 0)
    layout.notes.push_back(fmt::format(
        "{}: {} images of further roles (as in 0001.mask.png); left out", name, further));
  layout.understood =
      fmt::format("samples in {} tar file{}{}", shards.size(), shards.size() == 1 ? "" : "s",
                  classes.there() ? ", classes by classes.txt" : "");
  return layout;
}

}  // namespace graft
