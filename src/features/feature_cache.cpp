#include "features/feature_cache.h"

#include <sys/stat.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "base/half.h"
#include "base/limits.h"

namespace graft {
namespace {

constexpr std::string_view kIndex = ".index";
constexpr std::string_view kValues = ".values";
constexpr std::string_view kAside = ".damaged-";
// LMDB's, which held the features before.
constexpr const char* kEarlierFormat[] = {"data.mdb", "lock.mdb"};

bool fits_half(std::span<const float> values) {
  return std::all_of(values.begin(), values.end(),
                     [](float v) { return std::abs(v) < kHalfLimit; });
}

FeatureSet::Values encode(std::span<const float> values, FeatureType dtype) {
  const bool half = dtype == FeatureType::fp16 && fits_half(values);
  FeatureSet::Values out{half ? 16U : 32U, static_cast<uint32_t>(values.size()), {}};
  out.bytes.resize(values.size() * out.bits / 8);
  if (!half) {
    std::memcpy(out.bytes.data(), values.data(), values.size_bytes());
    return out;
  }
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t h = to_half(values[i]);
    std::memcpy(&out.bytes[2 * i], &h, sizeof h);
  }
  return out;
}

void decode(const FeatureSet::Values& stored, std::span<float> out) {
  if (stored.bits == 32) {
    std::memcpy(out.data(), stored.bytes.data(), out.size_bytes());
    return;
  }
  for (size_t i = 0; i < out.size(); ++i) {
    uint16_t h = 0;
    std::memcpy(&h, &stored.bytes[2 * i], sizeof h);
    out[i] = from_half(h);
  }
}

/// One of the cache's files, as the folder shows it.
struct File {
  fs::path path;
  std::string set;  // empty: put aside, of no set any more
  uint64_t bytes = 0;
  timespec used{};
  bool odd = false;  // no plain file
};

/// Of a folder, what is in it; of anything else what it takes itself.
uint64_t size_of_all(const fs::path& path, const struct stat& info) {
  if (!S_ISDIR(info.st_mode)) return static_cast<uint64_t>(info.st_size);
  uint64_t bytes = 0;
  std::error_code error;
  for (fs::recursive_directory_iterator it(path, error), end; !error && it != end;
       it.increment(error)) {
    struct stat inner {};
    if (::lstat(it->path().c_str(), &inner) == 0 && S_ISREG(inner.st_mode))
      bytes += static_cast<uint64_t>(inner.st_size);
  }
  return bytes;
}

bool earlier(const timespec& a, const timespec& b) {
  return std::pair(a.tv_sec, a.tv_nsec) < std::pair(b.tv_sec, b.tv_nsec);
}

std::vector<File> files_in(const fs::path& folder) {
  std::vector<File> out;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    File file{it->path(), {}, 0, {}};
    if (name.ends_with(kIndex) || name.ends_with(kValues))
      file.set = it->path().stem().string();
    else if (name.find(kAside) == std::string::npos)
      continue;
    struct stat info {};
    if (::lstat(file.path.c_str(), &info) != 0) continue;
    file.odd = !S_ISREG(info.st_mode);
    file.bytes = size_of_all(file.path, info);
    file.used = info.st_mtim;
    out.push_back(std::move(file));
  }
  return out;
}

struct SetFiles {
  std::string id;
  uint64_t bytes = 0;
  timespec used{};
};

/// Most recently used first. The last use of a set is the time of its newest file.
std::vector<SetFiles> sets_of(const std::vector<File>& files) {
  std::map<std::string, SetFiles> sets;
  for (const File& file : files) {
    if (file.set.empty() || file.odd) continue;
    SetFiles& set = sets[file.set];
    set.id = file.set;
    set.bytes += file.bytes;
    if (earlier(set.used, file.used)) set.used = file.used;
  }
  std::vector<SetFiles> out;
  out.reserve(sets.size());
  for (auto& [id, set] : sets) out.push_back(std::move(set));
  std::stable_sort(out.begin(), out.end(),
                   [](const SetFiles& a, const SetFiles& b) { return earlier(b.used, a.used); });
  return out;
}

/// Of a link the link, of a folder what is in it too.
uint64_t remove_file(const fs::path& path, uint64_t bytes) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error)
    fail(ErrorKind::io, "{}: cannot be removed: {}", printable(path),
         system_error_text(error.value()));
  return bytes;
}

}  // namespace

FeatureCache::FeatureCache(const std::filesystem::path& folder, uint64_t limit_bytes,
                           RunContext context)
    : folder_(folder), limit_(limit_bytes), context_(std::move(context)) {
  make_folder(folder);
}

void FeatureCache::report_damage(const FeatureSet& set) {
  if (set.damaged() == 0 || reported_) return;
  reported_ = true;
  if (!set.quarantined().empty())
    context_.tell(Severity::warning,
                  fmt::format("the feature cache was damaged; going on without what it held, which "
                              "is kept as {} until the space is needed",
                              printable(set.quarantined())));
  else
    context_.tell(Severity::warning,
                  fmt::format("{}: part of the feature cache is damaged (the disk?); it counts as "
                              "absent and is computed again",
                              printable(folder_ / (set.id() + std::string(kValues)))));
}

/// The set, if it is there.
FeatureSet* FeatureCache::find(const std::string& id) {
  FeatureSet& set = open_.try_emplace(id, folder_, id).first->second;
  const bool there = set.open();
  report_damage(set);
  if (there) return &set;
  open_.erase(id);
  return nullptr;
}

std::vector<FeatureCache::Set> FeatureCache::sets(
    const std::function<void(const std::string&)>& on_problem) {
  const std::lock_guard lock(mutex_);
  const auto tell = [&](const std::string& problem) {
    if (on_problem) on_problem(problem);
  };
  std::vector<Set> found;
  const std::vector<File> all = files_in(folder_);
  for (const File& file : all)
    if (file.odd && !file.set.empty())
      tell(fmt::format("{}: in the place of a set's file, but not a plain file",
                       printable(file.path)));
  for (const SetFiles& files : sets_of(all)) {
    try {
      if (const FeatureSet* set = find(files.id))
        found.push_back({files.id, set->about(), set->images(), files.bytes, files.used.tv_sec});
    } catch (const Error& error) {
      open_.erase(files.id);
      tell(error.what());
    }
  }
  return found;
}

bool FeatureCache::is_news(const std::string& text) {
  const std::lock_guard lock(mutex_);
  return told_.insert(text).second;
}

bool FeatureCache::has_set(const std::string& id) {
  const std::lock_guard lock(mutex_);
  return find(id) != nullptr;
}

void FeatureCache::use_set(const std::string& id, const nlohmann::json& about) {
  const std::lock_guard lock(mutex_);
  FeatureSet& set = open_.try_emplace(id, folder_, id).first->second;
  set.use(about);
  report_damage(set);
}

bool FeatureCache::contains(const std::string& set, const std::string& image) {
  const std::lock_guard lock(mutex_);
  const auto at = open_.find(set);
  const FeatureSet* found = at == open_.end() ? find(set) : &at->second;
  return found != nullptr && found->contains(image);
}

bool FeatureCache::read(const std::string& set, const std::string& image, std::span<float> out) {
  const std::lock_guard lock(mutex_);
  const auto at = open_.find(set);
  FeatureSet* found = at == open_.end() ? find(set) : &at->second;
  if (found == nullptr) return false;
  const bool good = found->read(image, static_cast<uint32_t>(out.size()), buffer_);
  report_damage(*found);
  if (good) decode(buffer_, out);
  return good;
}

bool FeatureCache::make_room(const std::string& set, uint64_t bytes) {
  const std::vector<File> files = files_in(folder_);
  uint64_t total = bytes;
  for (const File& file : files) total += file.bytes;
  // What was put aside is of the least use.
  for (const File& file : files)
    if (total > limit_ && file.set.empty()) total -= remove_file(file.path, file.bytes);
  std::vector<SetFiles> sets = sets_of(files);
  while (total > limit_ && !sets.empty()) {
    const SetFiles oldest = sets.back();
    sets.pop_back();
    if (oldest.id == set) continue;
    FeatureSet::remove(folder_, oldest.id);
    open_.erase(oldest.id);
    total -= oldest.bytes;
  }
  return total <= limit_;
}

bool FeatureCache::write(const std::string& set, std::span<const Entry> entries,
                         FeatureType dtype) {
  std::vector<FeatureSet::Entry> encoded;
  for (const Entry& entry : entries) encoded.push_back({entry.image, encode(entry.values, dtype)});
  return write_stored(set, encoded);
}

bool FeatureCache::read_stored(const std::string& set, const std::string& image, size_t elements,
                               FeatureSet::Values& out) {
  const std::lock_guard lock(mutex_);
  const auto at = open_.find(set);
  FeatureSet* found = at == open_.end() ? find(set) : &at->second;
  if (found == nullptr) return false;
  const bool good = found->read(image, static_cast<uint32_t>(elements), out);
  report_damage(*found);
  return good;
}

bool FeatureCache::write_stored(const std::string& set,
                                std::span<const FeatureSet::Entry> entries) {
  const std::lock_guard lock(mutex_);
  uint64_t bytes = 0;
  for (const FeatureSet::Entry& entry : entries) bytes += FeatureSet::size_on_disk(entry.values);
  if (!make_room(set, bytes)) return false;
  FeatureSet& to = open_.try_emplace(set, folder_, set).first->second;
  to.append(entries);
  report_damage(to);
  return true;
}

void FeatureCache::round(std::span<float> values, FeatureType dtype) {
  if (dtype != FeatureType::fp16 || !fits_half(values)) return;
  for (float& v : values) v = from_half(to_half(v));
}

uint64_t FeatureCache::clear(const std::filesystem::path& folder) {
  uint64_t freed = 0;
  for (const File& file : files_in(folder)) freed += remove_file(file.path, file.bytes);
  return freed + remove_earlier_format(folder);
}

uint64_t FeatureCache::remove_earlier_format(const std::filesystem::path& folder) {
  uint64_t freed = 0;
  for (const char* name : kEarlierFormat) {
    std::error_code error;
    const uint64_t size = fs::file_size(folder / name, error);
    if (!error) freed += remove_file(folder / name, size);
  }
  return freed;
}

bool FeatureCache::has_earlier_format(const std::filesystem::path& folder) {
  std::error_code error;
  return fs::exists(folder / kEarlierFormat[0], error);
}

std::filesystem::path feature_cache_folder(const std::filesystem::path& cache) {
  return (cache.empty() ? default_cache_folder() : cache) / "features";
}

std::vector<CachedFeatures> cached_features(
    const std::filesystem::path& cache, const std::function<void(const std::string&)>& on_problem) {
  const fs::path folder = feature_cache_folder(cache);
  if (FeatureCache::has_earlier_format(folder) && on_problem)
    on_problem(
        fmt::format("{}: features in an earlier version's format, which are of no use any more",
                    printable(folder / "data.mdb")));
  std::vector<CachedFeatures> out;
  std::error_code error;
  if (!fs::is_directory(folder, error)) return out;  // looking must not make a cache
  // The limit only matters for writing.
  for (const FeatureCache::Set& set : FeatureCache(folder, 0).sets(on_problem))
    out.push_back({set.id, set.about.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace),
                   set.images, set.bytes, set.used});
  return out;
}

uint64_t clear_cached_features(const std::filesystem::path& cache) {
  return FeatureCache::clear(feature_cache_folder(cache));
}

}  // namespace graft
