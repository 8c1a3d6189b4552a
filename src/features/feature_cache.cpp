#include "features/feature_cache.h"

#include <lmdb.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>

#include "base/file.h"
#include "base/half.h"
#include "graft/error.h"

namespace graft {
namespace {

/// Before the values of an entry.
struct Header {
  uint32_t bits = 0;  ///< 16 or 32
  uint32_t elements = 0;
};

MDB_val val(const std::string& text) {
  return {text.size(), const_cast<char*>(text.data())};  // LMDB does not change what it is given
}

bool fits_half(std::span<const float> values) {
  return std::all_of(values.begin(), values.end(),
                     [](float v) { return std::abs(v) < kHalfLimit; });
}

std::string encode(std::span<const float> values, CacheDtype dtype) {
  const bool half = dtype == CacheDtype::fp16 && fits_half(values);
  const Header header{half ? 16U : 32U, static_cast<uint32_t>(values.size())};
  std::string bytes(sizeof header + values.size() * header.bits / 8, '\0');
  std::memcpy(bytes.data(), &header, sizeof header);
  char* to = bytes.data() + sizeof header;
  if (!half) {
    std::memcpy(to, values.data(), values.size_bytes());
    return bytes;
  }
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t h = to_half(values[i]);
    std::memcpy(to + 2 * i, &h, sizeof h);
  }
  return bytes;
}

bool decode(const MDB_val& bytes, std::span<float> out) {
  Header header;
  if (bytes.mv_size < sizeof header) return false;
  std::memcpy(&header, bytes.mv_data, sizeof header);
  if ((header.bits != 16 && header.bits != 32) || header.elements != out.size() ||
      bytes.mv_size != sizeof header + out.size() * header.bits / 8)
    return false;
  const char* from = static_cast<const char*>(bytes.mv_data) + sizeof header;
  if (header.bits == 32) {
    std::memcpy(out.data(), from, out.size_bytes());
    return true;
  }
  for (size_t i = 0; i < out.size(); ++i) {
    uint16_t h = 0;
    std::memcpy(&h, from + 2 * i, sizeof h);
    out[i] = from_half(h);
  }
  return true;
}

/// Disk space of an entry: whole pages, the first with LMDB's own header.
uint64_t pages(size_t bytes) { return (bytes + 16 + 4095) / 4096 * 4096; }

int64_t now() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

/// Ends a transaction unless it was committed.
class Transaction {
 public:
  explicit Transaction(MDB_txn* txn) : txn_(txn) {}
  ~Transaction() {
    if (txn_ != nullptr) mdb_txn_abort(txn_);
  }
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  operator MDB_txn*() const { return txn_; }
  int commit() { return mdb_txn_commit(std::exchange(txn_, nullptr)); }

 private:
  MDB_txn* txn_;
};

nlohmann::json parse(const MDB_val& bytes) {
  const auto* text = static_cast<const char*>(bytes.mv_data);
  const auto json = nlohmann::json::parse(text, text + bytes.mv_size, nullptr, false);
  return json.is_object() ? json : nlohmann::json::object();
}

FeatureCache::Set set_of(const std::string& id, const MDB_val& bytes) {
  const nlohmann::json json = parse(bytes);
  return {id, json.value("about", nlohmann::json::object()), json.value("images", uint64_t{0}),
          json.value("bytes", uint64_t{0}), json.value("used", int64_t{0})};
}

std::string text_of(const FeatureCache::Set& set) {
  return nlohmann::json{
      {"about", set.about}, {"images", set.images}, {"bytes", set.bytes}, {"used", set.used}}
      .dump();
}

}  // namespace

FeatureCache::FeatureCache(const std::filesystem::path& folder, uint64_t limit_bytes)
    : folder_(folder), limit_(limit_bytes) {
  make_folder(folder);
  check(mdb_env_create(&env_));
  try {
    check(mdb_env_set_maxdbs(env_, 2));
    // Address space, not memory; with room for pages that wait to be used again.
    check(mdb_env_set_mapsize(env_, limit_ + limit_ / 4 + (uint64_t{256} << 20U)));
    check(mdb_env_open(env_, folder.c_str(), MDB_NOTLS | MDB_NOMETASYNC | MDB_NORDAHEAD, 0644));
    int dead = 0;
    mdb_reader_check(env_, &dead);  // readers that were killed would keep old pages alive
    Transaction txn(begin(true));
    check(mdb_dbi_open(txn, "sets", MDB_CREATE, &sets_));
    check(mdb_dbi_open(txn, "entries", MDB_CREATE, &entries_));
    check(txn.commit());
  } catch (...) {
    mdb_env_close(env_);
    throw;
  }
}

FeatureCache::~FeatureCache() { mdb_env_close(env_); }

void FeatureCache::check(int status) const {
  if (status != MDB_SUCCESS)
    fail(ErrorKind::io, "{}: feature cache: {}; 'graft cache clear' starts a new one",
         printable(folder_), mdb_strerror(status));
}

MDB_txn* FeatureCache::begin(bool write) {
  MDB_txn* txn = nullptr;
  int status = mdb_txn_begin(env_, nullptr, write ? 0 : MDB_RDONLY, &txn);
  if (status == MDB_MAP_RESIZED) {  // by another process, with a larger limit
    check(mdb_env_set_mapsize(env_, 0));
    status = mdb_txn_begin(env_, nullptr, write ? 0 : MDB_RDONLY, &txn);
  }
  check(status);
  return txn;
}

std::vector<FeatureCache::Set> FeatureCache::sets() {
  const std::lock_guard lock(mutex_);
  Transaction txn(begin(false));
  MDB_cursor* cursor = nullptr;
  check(mdb_cursor_open(txn, sets_, &cursor));
  std::vector<Set> found;
  MDB_val key;
  MDB_val value;
  while (mdb_cursor_get(cursor, &key, &value, MDB_NEXT) == MDB_SUCCESS)
    found.push_back(set_of(std::string(static_cast<const char*>(key.mv_data), key.mv_size), value));
  mdb_cursor_close(cursor);
  std::stable_sort(found.begin(), found.end(),
                   [](const Set& a, const Set& b) { return a.used > b.used; });
  return found;
}

bool FeatureCache::has_set(const std::string& id) {
  const std::lock_guard lock(mutex_);
  Transaction txn(begin(false));
  MDB_val key = val(id);
  MDB_val value;
  return mdb_get(txn, sets_, &key, &value) == MDB_SUCCESS;
}

void FeatureCache::use_set(const std::string& id, const nlohmann::json& about) {
  const std::lock_guard lock(mutex_);
  Transaction txn(begin(true));
  MDB_val key = val(id);
  MDB_val value;
  Set set{id, about, 0, 0, 0};
  if (mdb_get(txn, sets_, &key, &value) == MDB_SUCCESS) set = set_of(id, value);
  set.about = about;
  set.used = now();
  const std::string text = text_of(set);
  value = val(text);
  check(mdb_put(txn, sets_, &key, &value, 0));
  check(txn.commit());
}

bool FeatureCache::contains(const std::string& set, const std::string& image) {
  const std::lock_guard lock(mutex_);
  Transaction txn(begin(false));
  const std::string id = set + image;
  MDB_val key = val(id);
  MDB_val value;
  return mdb_get(txn, entries_, &key, &value) == MDB_SUCCESS;
}

bool FeatureCache::read(const std::string& set, const std::string& image, std::span<float> out) {
  const std::lock_guard lock(mutex_);
  const Transaction txn(begin(false));
  const std::string id = set + image;
  MDB_val key = val(id);
  MDB_val value;
  return mdb_get(txn, entries_, &key, &value) == MDB_SUCCESS && decode(value, out);
}

void FeatureCache::remove_set(MDB_txn* txn, const std::string& id) {
  MDB_cursor* cursor = nullptr;
  check(mdb_cursor_open(txn, entries_, &cursor));
  MDB_val key = val(id);
  MDB_val value;
  int status = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
  while (status == MDB_SUCCESS && key.mv_size >= id.size() &&
         std::memcmp(key.mv_data, id.data(), id.size()) == 0) {
    status = mdb_cursor_del(cursor, 0);
    if (status == MDB_SUCCESS) status = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
  }
  mdb_cursor_close(cursor);
  if (status != MDB_SUCCESS && status != MDB_NOTFOUND) check(status);
  key = val(id);
  status = mdb_del(txn, sets_, &key, nullptr);
  if (status != MDB_NOTFOUND) check(status);
}

bool FeatureCache::make_room(const std::string& set, uint64_t bytes) {
  std::vector<Set> all = sets();
  uint64_t total = bytes;
  for (const Set& s : all) total += s.bytes;
  while (total > limit_ && !all.empty()) {
    const Set oldest = all.back();
    all.pop_back();
    if (oldest.id == set) continue;
    const std::lock_guard lock(mutex_);
    Transaction txn(begin(true));
    remove_set(txn, oldest.id);
    check(txn.commit());
    total -= oldest.bytes;
  }
  return total <= limit_;
}

bool FeatureCache::write(const std::string& set, std::span<const Entry> entries, CacheDtype dtype) {
  std::vector<std::pair<std::string, std::string>> encoded;
  uint64_t bytes = 0;
  for (const Entry& entry : entries) {
    encoded.emplace_back(set + entry.image, encode(entry.values, dtype));
    bytes += pages(encoded.back().second.size());
  }
  if (!make_room(set, bytes)) return false;
  const std::lock_guard lock(mutex_);
  Transaction txn(begin(true));
  MDB_val key = val(set);
  MDB_val value;
  Set about{set, nlohmann::json::object(), 0, 0, now()};
  if (mdb_get(txn, sets_, &key, &value) == MDB_SUCCESS) about = set_of(set, value);
  for (const auto& [id, text] : encoded) {
    MDB_val entry_key = val(id);
    value = val(text);
    const int status = mdb_put(txn, entries_, &entry_key, &value, MDB_NOOVERWRITE);
    if (status == MDB_KEYEXIST) continue;  // another process was faster
    if (status == MDB_MAP_FULL) return false;
    check(status);
    about.bytes += pages(text.size());
    ++about.images;
  }
  const std::string text = text_of(about);
  value = val(text);
  check(mdb_put(txn, sets_, &key, &value, 0));
  check(txn.commit());
  return true;
}

void FeatureCache::round(std::span<float> values, CacheDtype dtype) {
  if (dtype != CacheDtype::fp16 || !fits_half(values)) return;
  for (float& v : values) v = from_half(to_half(v));
}

}  // namespace graft
