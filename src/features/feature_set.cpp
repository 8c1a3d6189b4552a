#include "features/feature_set.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/lock.h"

namespace graft {
namespace {

constexpr std::array<char, 8> kMagic = {'g', 'r', 'a', 'f', 't', 's', 'e', 't'};
constexpr uint32_t kVersion = 1;
constexpr size_t kHeadBytes = 4096;
constexpr size_t kRecordsAtOnce = 4096;
// Fifty million records; past that a size is damage.
constexpr uint64_t kMostIndexBytes = uint64_t{3} << 30U;
// Another process holds the lock while it writes 32 MB.
constexpr std::chrono::seconds kPatience{10};

/// At the start of the index, followed by the description as JSON.
struct Head {
  std::array<char, 8> magic = kMagic;
  uint32_t version = kVersion;
  uint32_t about_bytes = 0;
  uint64_t about_hash = 0;
};
static_assert(sizeof(Head) == 24);

/// Reads up to `count` bytes; fewer at the end of the file or after an error.
size_t read_at(int fd, void* to, size_t count, uint64_t offset) {
  size_t done = 0;
  while (done < count) {
    const ssize_t got =
        ::pread(fd, static_cast<char*>(to) + done, count - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    done += static_cast<size_t>(got);
  }
  return done;
}

/// Writes all of it. False, and errno, if that failed.
bool write_at(int fd, const void* from, size_t count, uint64_t offset) {
  size_t done = 0;
  while (done < count) {
    const ssize_t put = ::pwrite(fd, static_cast<const char*>(from) + done, count - done,
                                 static_cast<off_t>(offset + done));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return false;
    if (put == 0) {
      errno = ENOSPC;
      return false;
    }
    done += static_cast<size_t>(put);
  }
  return true;
}

uint64_t size_of(int fd) {
  struct stat info {};
  return ::fstat(fd, &info) == 0 && S_ISREG(info.st_mode) ? static_cast<uint64_t>(info.st_size) : 0;
}

uint64_t length_of(uint32_t elements, uint32_t bits) { return uint64_t{elements} * (bits / 8); }

}  // namespace

/// On disk, little-endian like everything else here.
struct FeatureSet::Record {
  Key key;
  Place place;
  uint64_t hash = 0;  ///< of what is above, seeded with the set's identity
};

/// The lock on the index, for as long as something is added.
class FeatureSet::WriteLock {
 public:
  explicit WriteLock(int fd) : fd_(fd) {}
  ~WriteLock() {
    if (fd_ >= 0) unlock(fd_);
  }
  WriteLock(WriteLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  WriteLock& operator=(WriteLock&&) = delete;
  WriteLock(const WriteLock&) = delete;
  WriteLock& operator=(const WriteLock&) = delete;

 private:
  int fd_;
};

FeatureSet::FeatureSet(const std::filesystem::path& folder, std::string id)
    : index_path_(folder / (id + ".index")),
      values_path_(folder / (id + ".values")),
      id_(std::move(id)),
      seed_(XXH3_64bits(id_.data(), id_.size())) {}

FeatureSet::Key FeatureSet::key_of(const std::string& image) {
  const XXH128_hash_t hash = XXH3_128bits(image.data(), image.size());
  return {hash.low64, hash.high64};
}

FeatureSet::Record FeatureSet::make_record(const Key& key, const Place& place) const {
  static_assert(sizeof(Record) == 48, "the layout on disk");
  Record record{key, place};
  record.hash = XXH3_64bits_withSeed(&record, offsetof(Record, hash), seed_);
  return record;
}

void FeatureSet::fail_io(const std::filesystem::path& path, int error) const {
  fail(ErrorKind::io, "{}: feature cache: {}", printable(path), system_error_text(error));
}

void FeatureSet::forget() {
  index_.close();
  values_.close();
  records_.clear();
  about_ = nlohmann::json::object();
  seen_ = 0;
  end_ = 0;
  why_read_only_ = 0;
}

/// Whether something other than a plain file bears the name: a folder, a link, a pipe.
bool FeatureSet::is_odd(const std::filesystem::path& path) {
  struct stat info {};
  return ::lstat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode);
}

bool FeatureSet::open_files(bool create) {
  forget();
  if (is_odd(index_path_) || is_odd(values_path_)) {
    if (!create) return false;
    put_aside();
  }
  // A cache that may only be read is of use too.
  const auto open_one = [&](const std::filesystem::path& path) {
    const int flags = O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW;
    Descriptor file(::open(path.c_str(), O_RDWR | flags | (create ? O_CREAT : 0), 0644));
    if (!file.valid() && !create && (errno == EACCES || errno == EROFS || errno == EPERM)) {
      why_read_only_ = errno;
      file = Descriptor(::open(path.c_str(), O_RDONLY | flags));
    }
    if (!file.valid() && (create || errno != ENOENT)) fail_io(path, errno);
    return file;
  };
  index_ = open_one(index_path_);
  if (index_.valid()) values_ = open_one(values_path_);
  return index_.valid() && values_.valid();
}

/// Whether the files that are open are those that bear the names.
bool FeatureSet::is_current() const {
  return index_.valid() && names_file(index_path_, index_.get()) && values_.valid() &&
         names_file(values_path_, values_.get());
}

bool FeatureSet::read_head() {
  std::string bytes(kHeadBytes, '\0');
  if (size_of(index_.get()) > kMostIndexBytes ||
      read_at(index_.get(), bytes.data(), kHeadBytes, 0) != kHeadBytes)
    return false;
  Head head;
  std::memcpy(&head, bytes.data(), sizeof head);
  if (head.magic != kMagic || head.version != kVersion ||
      head.about_bytes > kHeadBytes - sizeof head ||
      head.about_hash != XXH3_64bits_withSeed(&bytes[sizeof head], head.about_bytes, seed_))
    return false;
  const char* text = &bytes[sizeof head];
  about_ = nlohmann::json::parse(text, text + head.about_bytes, nullptr, false);
  if (!about_.is_object()) about_ = nlohmann::json::object();
  seen_ = std::max<uint64_t>(seen_, kHeadBytes);
  return true;
}

void FeatureSet::write_head() {
  std::string text = wanted_.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  if (text.size() > kHeadBytes - sizeof(Head)) text = "{}";
  Head head;
  head.about_bytes = static_cast<uint32_t>(text.size());
  head.about_hash = XXH3_64bits_withSeed(text.data(), text.size(), seed_);
  std::string bytes(kHeadBytes, '\0');
  std::memcpy(bytes.data(), &head, sizeof head);
  std::copy(text.begin(), text.end(), bytes.begin() + sizeof head);
  if (write_at(index_.get(), bytes.data(), bytes.size(), 0)) return;
  const int error = errno;
  static_cast<void>(::ftruncate(index_.get(), 0) + 0);
  fail_io(index_path_, error);
}

void FeatureSet::read_new_records() {
  std::vector<Record> records(kRecordsAtOnce);
  while (true) {
    const size_t got =
        read_at(index_.get(), records.data(), records.size() * sizeof(Record), seen_);
    const size_t count = got / sizeof(Record);
    const uint64_t stored = size_of(values_.get());  // after their records, which are written last
    for (size_t i = 0; i < count; ++i) {
      const auto& [key, place, hash] = records[i];
      if (hash != make_record(key, place).hash) {
        ++damaged_;
        continue;
      }
      const uint64_t length = length_of(place.elements, place.bits);
      if (length > stored || place.offset > stored - length) {
        ++damaged_;
        records_.erase(key);
      } else {
        end_ = std::max(end_, place.offset + length);
        records_[key] = place;  // of two the later one: the earlier was found damaged
      }
    }
    seen_ += count * sizeof(Record);
    if (count < records.size()) return;
  }
}

bool FeatureSet::open() {
  if (is_current()) {
    read_new_records();
    return true;
  }
  if (!open_files(/*create=*/false) || !read_head()) {
    if (size_of(index_.get()) > kHeadBytes) ++damaged_;  // else it may be in the making
    forget();
    return false;
  }
  read_new_records();
  return true;
}

/// Locks the files that bear the names, made where there are none: another process may have removed
/// those that are open.
FeatureSet::WriteLock FeatureSet::lock_for_writing() {
  while (true) {
    if (!is_current()) static_cast<void>(open_files(/*create=*/true));
    if (why_read_only_ != 0) fail_io(index_path_, why_read_only_);
    // Where the file system has no locks, hashes sort out what two writers make of it.
    if (lock_exclusively(index_.get(), kPatience) == LockState::busy)
      fail(ErrorKind::io, "{}: feature cache: another process has locked it for more than {} s",
           printable(index_path_), kPatience.count());
    WriteLock lock(index_.get());
    if (!is_current()) continue;
    if (size_of(index_.get()) == 0) write_head();
    if (!read_head()) {
      put_aside();
      continue;
    }
    read_new_records();
    return lock;
  }
}

void FeatureSet::put_aside() {
  forget();
  const auto now = std::chrono::duration_cast<std::chrono::seconds>(
                       std::chrono::system_clock::now().time_since_epoch())
                       .count();
  ++damaged_;
  const auto name = [&](const std::filesystem::path& path, int64_t number) {
    return std::filesystem::path(path.native() + fmt::format(".damaged-{}", number));
  };
  // One may have been put aside in the same second, and be a folder, which no rename replaces.
  int64_t number = now;
  std::error_code error;
  const auto taken = [&](const std::filesystem::path& path) {
    return std::filesystem::exists(std::filesystem::symlink_status(path, error));
  };
  while (taken(name(values_path_, number)) || taken(name(index_path_, number))) ++number;
  for (const std::filesystem::path& path : {values_path_, index_path_}) {
    const std::filesystem::path aside = name(path, number);
    if (::rename(path.c_str(), aside.c_str()) != 0 && errno != ENOENT) fail_io(path, errno);
    quarantined_ = aside;
  }
}

void FeatureSet::use(const nlohmann::json& about) {
  wanted_ = about;
  if (!open() || about_ != about) {
    const WriteLock lock = lock_for_writing();
    if (about_ != about) write_head();
    about_ = about;
  }
  ::futimens(index_.get(), nullptr);  // where the cache may only be read, its times stay
}

bool FeatureSet::contains(const std::string& image) const {
  return records_.contains(key_of(image));
}

bool FeatureSet::read(const std::string& image, uint32_t elements, Values& out) {
  const auto at = records_.find(key_of(image));
  if (at == records_.end()) return false;
  const Place& place = at->second;
  if (place.elements != elements || (place.bits != 16 && place.bits != 32)) return false;
  out.bits = place.bits;
  out.elements = elements;
  out.bytes.resize(length_of(elements, place.bits));
  if (read_at(values_.get(), out.bytes.data(), out.bytes.size(), place.offset) ==
          out.bytes.size() &&
      XXH3_64bits(out.bytes.data(), out.bytes.size()) == place.hash)
    return true;
  ++damaged_;
  records_.erase(at);
  return false;
}

void FeatureSet::append(std::span<const Entry> entries) {
  const WriteLock lock = lock_for_writing();
  std::vector<Record> records;
  uint64_t end = end_;
  const auto give_up = [&](const std::filesystem::path& path, int error) {
    // Room for others; where even that fails, what is there is mentioned nowhere.
    static_cast<void>(::ftruncate(index_.get(), static_cast<off_t>(seen_)) +
                      ::ftruncate(values_.get(), static_cast<off_t>(end_)));
    fail_io(path, error);
  };
  for (const Entry& entry : entries) {
    const Key key = key_of(entry.image);
    if (records_.contains(key)) continue;  // another process was faster
    const std::string& bytes = entry.values.bytes;
    if (!write_at(values_.get(), bytes.data(), bytes.size(), end)) give_up(values_path_, errno);
    records.push_back(make_record(key, {end, XXH3_64bits(bytes.data(), bytes.size()),
                                        entry.values.elements, entry.values.bits}));
    end += bytes.size();
  }
  if (records.empty()) return;
  if (!write_at(index_.get(), records.data(), records.size() * sizeof(Record), seen_))
    give_up(index_path_, errno);
  for (const Record& record : records) records_[record.key] = record.place;
  seen_ += records.size() * sizeof(Record);
  end_ = end;
}

uint64_t FeatureSet::size_on_disk(const Values& values) {
  return values.bytes.size() + sizeof(Record);
}

uint64_t FeatureSet::remove(const std::filesystem::path& folder, const std::string& id) {
  uint64_t freed = 0;
  // Values first: an index without them is empty, values without an index would be in the way.
  for (const char* suffix : {".values", ".index"}) {
    const std::filesystem::path path = folder / (id + suffix);
    std::error_code error;
    const uint64_t size = std::filesystem::file_size(path, error);
    if (error || ::unlink(path.c_str()) != 0) continue;
    freed += size;
  }
  return freed;
}

}  // namespace graft
