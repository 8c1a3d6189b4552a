#include "graft/sort_images.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <utility>

#include "base/csv.h"
#include "base/descriptor.h"
#include "base/fail.h"
#include "base/file.h"
#include "base/file_names.h"
#include "base/limits.h"
#include "dataset/archive.h"

namespace graft {
namespace {

constexpr std::string_view kListHeader = "path,file,label,probability\n";
constexpr const char* kListName = "sorted.csv";

[[noreturn]] void fail_place(const fs::path& target, int error) {
  fail(ErrorKind::io, "{}: cannot be written: {}", printable(target), system_error_text(error));
}

/// Names that a file system may hold to be the same.
std::string folded(const std::string& name) {
  utf8proc_uint8_t* out = nullptr;
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_NULLTERM | UTF8PROC_STABLE |
                                                      UTF8PROC_COMPOSE | UTF8PROC_CASEFOLD);
  if (utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(name.c_str()), 0, &out, options) < 0)
    return name;
  std::string text(reinterpret_cast<const char*>(out));
  std::free(out);  // NOLINT(cppcoreguidelines-no-malloc): utf8proc's own malloc
  return text;
}

/// A class as a folder's name that every file system takes, and that walks do not pass over.
std::string folder_name(const std::string& label) {
  constexpr size_t kMostBytes = 180;
  std::string name = printable(label);
  for (char& c : name)
    if (std::string_view("/\\:*?\"<>|").find(c) != std::string_view::npos) c = '_';
  if (!name.empty() && (name.front() == '.' || name.front() == ' ')) name.front() = '_';
  if (!name.empty() && (name.back() == '.' || name.back() == ' ')) name.back() = '_';
  if (name.empty()) return "_";
  return name.size() > kMostBytes ? short_name(name) : name;
}

/// The folders of all classes, and last the one of the unsure images.
std::vector<std::string> folder_names(const std::vector<std::string>& classes) {
  std::vector<std::string> names;
  std::set<std::string> taken;
  const auto add = [&](const std::string& wanted) {
    std::string name = wanted;
    for (int number = 2; !taken.insert(folded(name)).second; ++number)
      name = fmt::format("{}-{}", wanted, number);
    names.push_back(name);
  };
  // Classes that need no other name keep theirs.
  for (const std::string& label : classes)
    if (folder_name(label) == label) taken.insert(folded(label));
  std::set<std::string> kept;
  for (const std::string& label : classes) {
    if (folder_name(label) == label && kept.insert(folded(label)).second)
      names.push_back(label);
    else
      add(folder_name(label));
  }
  add("unsure");
  return names;
}

void copy_content(int from, int to, const fs::path& source, const fs::path& target) {
  if (::ioctl(to, FICLONE, from) == 0) return;
  constexpr size_t kChunk = size_t{1} << 30U;
  bool first = true;
  while (true) {
    const ssize_t copied = ::copy_file_range(from, nullptr, to, nullptr, kChunk, 0);
    if (copied > 0) {
      first = false;
      continue;
    }
    if (copied == 0) return;
    if (errno == EINTR) continue;
    if (!first || (errno != EXDEV && errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP &&
                   errno != EPERM && errno != EBADF))
      fail_place(target, errno);
    break;
  }
  // Between file systems that cannot do it themselves.
  std::vector<char> buffer(size_t{1} << 20U);
  while (true) {
    const ssize_t got = ::read(from, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0)
      fail(ErrorKind::io, "{}: cannot read: {}", printable(source), system_error_text(errno));
    if (got == 0) return;
    for (ssize_t done = 0; done < got;) {
      const ssize_t put = ::write(to, buffer.data() + done, static_cast<size_t>(got - done));
      if (put < 0 && errno == EINTR) continue;
      if (put <= 0) fail_place(target, errno);
      done += put;
    }
  }
}

/// A name for a file that has none yet, or none that stays; false where another file bears it.
bool name_without_replacing(const fs::path& temporary, const fs::path& target) {
  if (::renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, target.c_str(), RENAME_NOREPLACE) == 0)
    return true;
  if (errno == EEXIST) return false;
  if (errno != EINVAL && errno != ENOSYS) fail_place(target, errno);
  if (::link(temporary.c_str(), target.c_str()) == 0) {
    ::unlink(temporary.c_str());
    return true;
  }
  if (errno == EEXIST) return false;
  fail_place(target, errno);
}

bool is_in_archive(const fs::path& image) {
  std::error_code error;
  return !fs::exists(image, error) && find_in_archive(image).has_value();
}

/// The same of an image in an archive.
bool write_to(const std::vector<std::byte>& bytes, const fs::path& target) {
  AtomicFile file(target);  // which removes what has not got its name
  file.write(bytes);
  file.flush();
  return name_without_replacing(file.temporary(), target);
}

bool copy_to(const fs::path& image, const fs::path& target) {
  const Descriptor from(::open(image.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat info {};
  if (!from.valid() || ::fstat(from.get(), &info) != 0)
    fail(ErrorKind::io, "{}: cannot read: {}", printable(image), system_error_text(errno));
  if (!S_ISREG(info.st_mode)) fail(ErrorKind::io, "{}: is no regular file", printable(image));
  const AtomicFile file(target);  // which removes what has not got its name
  const Descriptor to(::open(file.temporary().c_str(), O_WRONLY | O_CLOEXEC));
  if (!to.valid()) fail_place(target, errno);
  copy_content(from.get(), to.get(), image, target);
  // Photos are sorted by their times.
  const std::array<timespec, 2> times = {info.st_atim, info.st_mtim};
  ::futimens(to.get(), times.data());
  return name_without_replacing(file.temporary(), target);
}

bool same_content(const fs::path& a, const fs::path& b) {
  const std::optional<uint64_t> size = size_of_path(a);
  if (!size || size != size_of_path(b)) return false;
  if (is_in_archive(a)) return read_file(a) == read_file(b);
  const MappedFile x(a);
  const MappedFile y(b);
  return std::equal(x.bytes().begin(), x.bytes().end(), y.bytes().begin(), y.bytes().end());
}

/// Whether the file in that place is the image: by a link, or as a copy, whichever was asked for
/// now.
bool is_placed(const fs::path& image, const fs::path& target) {
  std::error_code error;
  if (fs::equivalent(image, target, error)) return true;
  return fs::is_regular_file(fs::symlink_status(target, error)) && same_content(image, target);
}

/// Gives the image that name; false where another file bears it.
bool put(const fs::path& image, const fs::path& target, Placing placing) {
  if (is_in_archive(image)) {
    if (placing == Placing::copy) return write_to(read_file(image), target);
    fail(ErrorKind::usage,
         "{}: an image in an archive can be copied, not linked to; leave the links out",
         printable(image));
  }
  if (placing == Placing::copy) return copy_to(image, target);
  std::error_code error;
  const fs::path original = fs::canonical(image, error);
  if (error) fail(ErrorKind::io, "{}: cannot be linked to: {}", printable(image), error.message());
  const int done = placing == Placing::hard_link ? ::link(original.c_str(), target.c_str())
                                                 : ::symlink(original.c_str(), target.c_str());
  if (done == 0) return true;
  if (errno == EEXIST) return false;
  if (errno == EXDEV || errno == EPERM || errno == EMLINK || errno == EOPNOTSUPP)
    fail(ErrorKind::io, "{}: {} cannot be linked there: {}; use other links, or copies",
         printable(target), printable(image), system_error_text(errno));
  fail_place(target, errno);
}

}  // namespace

struct ImageSorter::State {
  fs::path folder;
  std::vector<std::string> classes;
  SortOptions options;
  std::vector<std::string> names;  // of folders, as folder_names() has them
  std::vector<size_t> counts;
  size_t already = 0;
  // What is remembered is forgotten when it is much, as when images come for months: then an image
  // that is the same as another may be taken for it, and numbers are looked for anew.
  std::set<fs::path> taken;                             // by images of this object
  std::map<fs::path, int> last_number;                  // of each wanted name
  std::map<std::string, std::set<std::string>> before;  // image → where it lies by sorted.csv
  std::vector<fs::path> stale;
  Descriptor list;

  void forget_what_is_much() {
    constexpr size_t kMost = 200'000;
    if (taken.size() > kMost) taken.clear(), last_number.clear();
    if (before.size() > kMost) before.clear();
  }

  void note(const fs::path& image, const std::string& file, const Prediction& prediction) {
    const size_t label = prediction.best();
    const std::string line =
        fmt::format("{},{},{},{:.6f}\n", csv_field(image.string()), csv_field(file),
                    csv_field(classes.at(label)), prediction.probabilities.at(label));
    if (::write(list.get(), line.data(), line.size()) != static_cast<ssize_t>(line.size()))
      fail_place(folder / kListName, errno);
  }
};

ImageSorter::ImageSorter(const fs::path& folder, const std::vector<std::string>& classes,
                         const SortOptions& options)
    : state_(std::make_unique<State>()) {
  if (!(options.unsure >= 0 && options.unsure <= 1))
    fail(ErrorKind::usage, "unsure is {}; expected a probability from 0 to 1", options.unsure);
  State& s = *state_;
  s.folder = folder;
  s.classes = classes;
  s.options = options;
  s.names = folder_names(classes);
  s.counts.assign(s.names.size(), 0);
  make_folder(folder);
  const fs::path list = folder / kListName;
  std::error_code error;
  const bool there = fs::exists(fs::symlink_status(list, error));
  if (there && !file_begins_with(list, kListHeader))
    fail(ErrorKind::usage,
         "{}: is no list that sorting images wrote; choose another folder, or move it away",
         printable(list));
  if (there) {
    const std::vector<CsvRow> rows = parse_csv(read_text_file(list), printable(list));
    for (size_t i = 1; i < rows.size(); ++i)
      if (rows[i].fields.size() == 4) s.before[rows[i].fields[0]].insert(rows[i].fields[1]);
  }
  s.list = Descriptor(::open(list.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
  if (!s.list.valid() || (!there && ::write(s.list.get(), kListHeader.data(), kListHeader.size()) !=
                                        static_cast<ssize_t>(kListHeader.size())))
    fail_place(list, errno);
}

ImageSorter::~ImageSorter() = default;
ImageSorter::ImageSorter(ImageSorter&&) noexcept = default;
ImageSorter& ImageSorter::operator=(ImageSorter&&) noexcept = default;

fs::path ImageSorter::place(const fs::path& image, const Prediction& prediction) {
  State& s = *state_;
  const size_t label = prediction.best();
  const bool unsure = prediction.probabilities.at(label) < s.options.unsure;
  const size_t index = unsure ? s.names.size() - 1 : label;
  const std::string& name = s.names.at(index);
  make_folder(s.folder / name);
  s.forget_what_is_much();
  const auto finish = [&](const fs::path& target) {
    s.taken.insert(target);
    ++s.counts.at(index);
    return target;
  };
  std::set<std::string>& before = s.before[image.string()];
  std::error_code error;
  for (const std::string& file : before) {
    const fs::path target = s.folder / file;
    if (!fs::exists(fs::symlink_status(target, error))) {
      // Somebody has put it into the folder where it belongs.
      for (size_t other = 0; other < s.names.size(); ++other) {
        fs::path moved = s.folder / s.names[other] / target.filename();
        if (other == index || s.taken.contains(moved) || !is_placed(image, moved)) continue;
        s.taken.insert(moved);
        ++s.counts.at(other);
        ++s.already;
        return moved;
      }
      continue;
    }
    if (target.parent_path().filename() != name) {
      s.stale.push_back(target);
    } else if (!s.taken.contains(target) && is_placed(image, target)) {
      ++s.already;
      return finish(target);
    }
  }
  int& number = s.last_number[s.folder / name / image.filename()];
  while (true) {
    std::string file = image.filename().string();
    if (++number > 1)
      file = fmt::format("{}-{}{}", short_name(image.stem().string()), number,
                         image.extension().string());
    const fs::path target = s.folder / name / file;
    if (s.taken.contains(target)) continue;
    if (fs::exists(fs::symlink_status(target, error))) {
      if (!is_placed(image, target)) continue;
      ++s.already;
    } else if (!put(image, target, s.options.placing)) {
      --number;  // a file came there meanwhile, and is looked at
      continue;
    }
    const std::string in_folder = name + "/" + file;
    if (before.insert(in_folder).second) s.note(image, in_folder, prediction);
    return finish(target);
  }
}

std::vector<std::string> ImageSorter::notes() const {
  std::vector<std::string> out;
  const State& s = *state_;
  for (size_t i = 0; i < s.classes.size(); ++i)
    if (s.names[i] != s.classes[i])
      out.push_back(
          fmt::format("images of class '{}' go to '{}'", printable(s.classes[i]), s.names[i]));
  if (s.options.unsure > 0 && s.names.back() != "unsure")
    out.push_back(fmt::format(
        "unsure images go to '{}', since a class has a folder of the other name", s.names.back()));
  return out;
}

std::string ImageSorter::summary() const {
  const State& s = *state_;
  size_t all = 0;
  std::vector<std::string> parts;
  for (size_t i = 0; i < s.names.size(); ++i) {
    all += s.counts[i];
    if (s.counts[i] > 0) parts.push_back(fmt::format("{} {}", s.names[i], s.counts[i]));
  }
  constexpr size_t kMostParts = 20;
  if (parts.size() > kMostParts) {
    const size_t more = parts.size() - kMostParts;
    parts.resize(kMostParts);
    parts.push_back(fmt::format("{} more", more));
  }
  return fmt::format("{} image{} into {}{}{}{}", all, all == 1 ? "" : "s", printable(s.folder),
                     parts.empty() ? "" : ": ", fmt::join(parts, ", "),
                     s.already > 0 ? fmt::format(" ({} lay there already)", s.already) : "");
}

const std::vector<fs::path>& ImageSorter::stale() const { return state_->stale; }

}  // namespace graft
