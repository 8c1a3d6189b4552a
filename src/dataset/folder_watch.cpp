#include "graft/folder_watch.h"

#include <poll.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>

#include "base/descriptor.h"
#include "base/fail.h"
#include "base/file.h"
#include "base/limits.h"
#include "dataset/dataset.h"
#include "dataset/folders.h"

namespace graft {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kUsualInterval{2000};
// Between looks at whether to stop, or at files that may still be written.
constexpr std::chrono::milliseconds kPatience{250};
// As long a file must have stayed as it is where nobody tells that it is whole.
constexpr std::chrono::milliseconds kSettled{1000};

constexpr uint32_t kEvents = IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE |
                             IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR | IN_DONT_FOLLOW |
                             IN_EXCL_UNLINK;

/// By which a file is the one that it was.
struct Stamp {
  uint64_t inode = 0;
  int64_t size = 0;
  int64_t modified = 0;  // nanoseconds
  int64_t changed = 0;   // of its inode, as by renaming

  [[nodiscard]] bool same_content(const Stamp& other) const {
    return inode == other.inode && size == other.size && modified == other.modified;
  }
};

int64_t nanoseconds(const timespec& t) { return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec; }

/// Of a regular file; nothing where there is none.
std::optional<Stamp> stamp_of(const fs::path& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) return std::nullopt;
  return Stamp{info.st_ino, info.st_size, nanoseconds(info.st_mtim), nanoseconds(info.st_ctim)};
}

int64_t now_of_files() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME_COARSE, &now);  // which file systems take their times from
  return nanoseconds(now);
}

bool is_network_drive(const fs::path& folder) {
  struct statfs info {};
  if (::statfs(folder.c_str(), &info) != 0) return false;
  constexpr std::array<uint32_t, 6> kKinds = {0x6969,       // NFS
                                              0xFF534D42,   // CIFS
                                              0xFE534D42,   // SMB2
                                              0x517B,       // SMB
                                              0x01021997,   // 9P
                                              0x00C36400};  // Ceph
  return std::find(kKinds.begin(), kKinds.end(), static_cast<uint32_t>(info.f_type)) !=
         kKinds.end();
}

/// A path under which a file is remembered, however it was named.
std::string key_of(const fs::path& path) {
  std::error_code error;
  return fs::absolute(path, error).lexically_normal().string();
}

bool is_hidden(std::string_view name) { return name.empty() || name.front() == '.'; }

}  // namespace

struct FolderWatch::State {
  /// A file that may still be written.
  struct Pending {
    Stamp stamp;
    Clock::time_point since;
  };

  State(fs::path the_folder, FolderWatchOptions the_options, RunContext the_context)
      : folder(std::move(the_folder)),
        options(std::move(the_options)),
        context(std::move(the_context)) {
    std::error_code error;
    for (fs::path& path : options.excluded) {
      path = fs::weakly_canonical(fs::absolute(path), error);
      if (!path.has_filename()) path = path.parent_path();  // named with a slash at its end
    }
    drained = now_of_files();
    if (options.every.count() > 0) {
      look_from_now_on();
    } else if (is_network_drive(folder)) {
      stop_listening("is on a network drive, where nobody tells of changes");
    } else {
      events = Descriptor(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
      if (!events.valid())
        stop_listening("cannot be watched: " + system_error_text(errno));
      else
        listen(folder, false);
    }
  }

  [[nodiscard]] bool listening() const { return events.valid(); }

  [[nodiscard]] bool is_excluded(const fs::path& path) const {
    if (options.excluded.empty()) return false;
    std::error_code error;
    const fs::path real = fs::weakly_canonical(path, error);
    return std::find(options.excluded.begin(), options.excluded.end(), real) !=
           options.excluded.end();
  }

  // --- Told by the system.

  /// Listens to a folder and those below it. `its_images`: those in it may be new.
  void listen(const fs::path& path, bool its_images) {
    if (!listening() || is_excluded(path)) return;
    const int watch = ::inotify_add_watch(events.get(), path.c_str(), kEvents);
    if (watch < 0 && (errno == ENOSPC || errno == ENOMEM)) {
      stop_listening("has more folders than this user may watch (fs.inotify.max_user_watches)");
      return;
    }
    if (watch < 0 && path == folder)
      fail(ErrorKind::io, "{}: cannot be watched: {}", printable(path), system_error_text(errno));
    if (watch < 0) return;  // gone again, or closed to us
    folders[watch] = path;
    for (const fs::path& entry : entries(path)) {
      std::error_code error;
      const fs::file_status status = fs::symlink_status(entry, error);
      if (fs::is_directory(status))
        listen(entry, its_images);
      else if (its_images && has_image_extension(entry))
        wait_for(entry);
      if (!listening()) return;
    }
  }

  static std::vector<fs::path> entries(const fs::path& path) {
    try {
      return list_folder(path);
    } catch (const Error&) {
      return {};  // gone meanwhile
    }
  }

  void wait_for(const fs::path& path) {
    if (const std::optional<Stamp> stamp = stamp_of(path))
      pending.insert_or_assign(path, Pending{*stamp, Clock::now()});
  }

  void forget_folders(const fs::path& below) {
    const std::string beginning = below.string() + "/";
    for (auto it = folders.begin(); it != folders.end();) {
      if (it->second == below || it->second.string().starts_with(beginning)) {
        ::inotify_rm_watch(events.get(), it->first);
        it = folders.erase(it);
      } else {
        ++it;
      }
    }
  }

  void add_ready(const fs::path& path) {
    pending.erase(path);
    const std::optional<Stamp> stamp = stamp_of(path);
    if (!stamp) return;  // gone again
    if (const auto it = seen.find(key_of(path));
        it != seen.end() && it->second.same_content(*stamp))
      return;
    if (waiting.insert(path).second) ready.push_back(path);
  }

  void take(const inotify_event& event) {
    if ((event.mask & IN_Q_OVERFLOW) != 0) {
      overflowed = true;
      return;
    }
    const auto it = folders.find(event.wd);
    if (it == folders.end()) return;
    const fs::path in = it->second;
    if ((event.mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT)) != 0 && in == folder)
      fail(ErrorKind::io, "{}: has been removed or moved away; nothing more can come",
           printable(folder));
    if ((event.mask & IN_IGNORED) != 0) {
      folders.erase(it);
      return;
    }
    if (event.len == 0) return;
    const std::string name = static_cast<const char*>(event.name);
    if (is_hidden(name)) return;
    const fs::path path = in / name;
    if ((event.mask & IN_ISDIR) != 0) {
      if ((event.mask & IN_MOVED_FROM) != 0) forget_folders(path);
      if ((event.mask & (IN_CREATE | IN_MOVED_TO)) != 0) listen(path, true);
      return;
    }
    if (!has_image_extension(path)) return;
    if ((event.mask & (IN_CLOSE_WRITE | IN_MOVED_TO)) != 0) {
      add_ready(path);
    } else if ((event.mask & IN_CREATE) != 0) {
      // A link is whole at once and never closed; a file that is being written is closed later.
      std::error_code error;
      if (fs::is_symlink(fs::symlink_status(path, error)) || fs::hard_link_count(path, error) > 1)
        add_ready(path);
    }
  }

  /// Events that are there. False where there were none.
  bool read_events() {
    alignas(inotify_event) std::array<char, 1U << 16U> buffer;
    const int64_t before = now_of_files();
    const ssize_t got = ::read(events.get(), buffer.data(), buffer.size());
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
      if (errno == EAGAIN) {
        drained = before;
        if (handled) seen.clear();  // everything from before is through
      }
      return false;
    }
    if (got < 0)
      fail(ErrorKind::io, "{}: cannot be watched: {}", printable(folder), system_error_text(errno));
    for (ssize_t at = 0; at < got && listening();) {
      const auto* event =
          reinterpret_cast<const inotify_event*>(&buffer.at(static_cast<size_t>(at)));
      take(*event);
      at += static_cast<ssize_t>(sizeof(inotify_event) + event->len);
    }
    if (std::exchange(overflowed, false) && listening()) catch_up();
    return true;
  }

  /// Events were lost: files that came or changed since the queue was last empty are looked for.
  void catch_up() {
    constexpr int64_t kSlack = 1'000'000'000;
    const int64_t since = drained - kSlack;
    listen(folder, false);
    walk(folder, [&](const fs::path& path, const Stamp& stamp) {
      if (stamp.changed >= since && !waiting.contains(path) && !is_told(path, stamp))
        wait_for(path);
    });
  }

  // --- Looked through.

  template <typename Visit>
  void walk(const fs::path& path, const Visit& visit) {
    if (is_excluded(path)) return;
    for (const fs::path& entry : entries(path)) {
      std::error_code error;
      if (fs::is_directory(fs::symlink_status(entry, error)))
        walk(entry, visit);
      else if (has_image_extension(entry))
        if (const std::optional<Stamp> stamp = stamp_of(entry)) visit(entry, *stamp);
    }
  }

  void stop_listening(const std::string& why) {
    events.close();
    folders.clear();
    options.every = kUsualInterval;
    context.tell(Severity::note,
                 fmt::format("{}: {}; it is looked through every {} seconds", printable(folder),
                             why, kUsualInterval.count() / 1000));
    look_from_now_on();
  }

  /// What came before counts as known, but for what the system may not have told yet.
  void look_from_now_on() {
    last_look = Clock::now();
    walk(folder, [&](const fs::path& path, const Stamp& stamp) {
      if (stamp.changed < drained || is_told(path, stamp)) seen.emplace(key_of(path), stamp);
    });
  }

  void look() {
    std::error_code error;
    if (!fs::is_directory(folder, error))
      fail(ErrorKind::io, "{}: has been removed or moved away; nothing more can come",
           printable(folder));
    last_look = Clock::now();
    std::unordered_map<std::string, Stamp> now;  // without what has gone
    walk(folder, [&](const fs::path& path, const Stamp& stamp) {
      const std::string key = key_of(path);
      const auto it = seen.find(key);
      if (it != seen.end() && it->second.same_content(stamp))
        now.emplace(key, stamp);
      else if (!pending.contains(path))
        pending.emplace(path, Pending{stamp, Clock::now()});
    });
    seen = std::move(now);
  }

  // --- Both.

  /// Whether the file was returned lately, as it is.
  [[nodiscard]] bool is_told(const fs::path& path, const Stamp& stamp) const {
    const auto it = told.find(path.string());
    return it != told.end() && it->second.same_content(stamp);
  }

  /// Files that have stayed as they are are ready.
  void settle() {
    const auto now = Clock::now();
    for (auto it = pending.begin(); it != pending.end();) {
      const std::optional<Stamp> stamp = stamp_of(it->first);
      if (!stamp) {
        it = pending.erase(it);
      } else if (!stamp->same_content(it->second.stamp)) {
        (it++)->second = {*stamp, now};
      } else if (now - it->second.since >= kSettled) {
        const fs::path path = it->first;
        it = pending.erase(it);
        if (!is_told(path, *stamp)) add_ready(path);
        if (!listening()) seen.insert_or_assign(key_of(path), *stamp);
      } else {
        ++it;
      }
    }
  }

  void wait() {
    if (listening() && read_events()) return;
    if (!listening() && Clock::now() - last_look >= options.every) look();
    settle();
    if (!ready.empty()) return;
    pollfd wanted{events.get(), POLLIN, 0};  // no descriptor: only the time counts
    ::poll(&wanted, listening() ? 1 : 0, static_cast<int>(kPatience.count()));
  }

  fs::path folder;
  FolderWatchOptions options;
  RunContext context;
  Descriptor events;                            // none: looked through
  std::map<int, fs::path> folders;              // by their watch
  std::map<fs::path, Pending> pending;          // that may still be written
  std::deque<fs::path> ready;                   // to be returned
  std::set<fs::path> waiting;                   // the same
  std::unordered_map<std::string, Stamp> seen;  // listening: known(); looking: all that is there
  // Returned lately: more than the kernel's queue of events holds, so that nothing is returned
  // twice after it overflowed.
  std::unordered_map<std::string, Stamp> told;
  std::deque<std::string> told_order;
  bool handled = false;  // next() was called since known()
  bool overflowed = false;
  int64_t drained = 0;  // by files' clock: when there was no event left
  Clock::time_point last_look;
};

FolderWatch::FolderWatch(const fs::path& folder, const FolderWatchOptions& options,
                         const RunContext& context) {
  require_reachable(folder);
  std::error_code error;
  if (!fs::is_directory(folder, error))
    fail(ErrorKind::input, "{}: {}", printable(folder),
         fs::exists(folder, error) ? "is no folder" : "no such folder");
  state_ = std::make_unique<State>(folder, options, context);
}

FolderWatch::~FolderWatch() = default;
FolderWatch::FolderWatch(FolderWatch&&) noexcept = default;
FolderWatch& FolderWatch::operator=(FolderWatch&&) noexcept = default;

std::vector<fs::path> FolderWatch::next(size_t most) {
  constexpr size_t kRemembered = 1U << 16U;
  State& s = *state_;
  s.handled = true;
  while (s.ready.empty()) {
    if (s.context.stop.stop_requested()) return {};
    s.wait();
  }
  std::vector<fs::path> out;
  while (!s.ready.empty() && out.size() < std::max<size_t>(most, 1)) {
    out.push_back(std::move(s.ready.front()));
    s.ready.pop_front();
    s.waiting.erase(out.back());
    if (const std::optional<Stamp> stamp = stamp_of(out.back())) {
      if (s.told.insert_or_assign(out.back().string(), *stamp).second)
        s.told_order.push_back(out.back().string());
      if (s.told_order.size() > kRemembered) {
        s.told.erase(s.told_order.front());
        s.told_order.pop_front();
      }
    }
  }
  return out;
}

void FolderWatch::known(const std::vector<fs::path>& images) {
  for (const fs::path& image : images)
    if (const std::optional<Stamp> stamp = stamp_of(image))
      state_->seen.insert_or_assign(key_of(image), *stamp);
  state_->handled = false;
}

}  // namespace graft
