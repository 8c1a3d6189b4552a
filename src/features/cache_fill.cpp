#include "features/cache_fill.h"

#include <fmt/format.h>

#include <utility>

#include "base/hash.h"
#include "graft/error.h"
#include "image/augment.h"

namespace graft {

CacheFill::CacheFill(const SourceJob& job)
    : job_(job),
      prefix_(*job.prefix),
      // Views that leave images as they are, are one.
      views_(job.augmentation.leaves_images() ? 1 : job.views),
      hashes_(job.hashes.empty() ? content_hashes(job.paths, job.context)
                                 : std::vector<std::string>(job.hashes.begin(), job.hashes.end())) {
  prefix_.end = stored_end(prefix_);
  set_ = feature_set_id(prefix_, job.preprocessing, prefix_.end);
  elements_ = static_cast<size_t>(output_shapes(prefix_.network)[prefix_.end - 1].elements());
}

/// Whoever reads the features afterwards says what is wrong with the cache.
void CacheFill::with_cache(const std::function<void()>& body) {
  if (prefix_.cache == nullptr) return;
  try {
    body();
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::io) throw;
    prefix_.cache = nullptr;
  }
}

std::string CacheFill::key(size_t entry) const {
  const std::string& hash = hashes_[entry % hashes_.size()];
  if (job_.augmentation.leaves_images()) return hash;
  return hash + draw_view(job_.augmentation, job_.seed, hash, entry / hashes_.size()).id();
}

std::vector<CacheFill::State> CacheFill::look() {
  std::vector<State> out(size(), State::none);
  with_cache([&] {
    const bool there = prefix_.cache->has_set(set_);  // and reads what is new
    for (size_t entry = 0; entry < out.size(); ++entry)
      if (!hashes_[entry % hashes_.size()].empty())
        out[entry] =
            there && prefix_.cache->contains(set_, key(entry)) ? State::there : State::missing;
  });
  if (prefix_.cache == nullptr) out.assign(out.size(), State::none);
  return out;
}

bool CacheFill::has_earlier() const {
  try {
    return prefix_.cache != nullptr && has_earlier_features(prefix_, job_.preprocessing);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::io) throw;
    return false;
  }
}

void CacheFill::continue_earlier(std::span<const size_t> entries) {
  each_view(entries, StoreStep::continue_earlier, nullptr);
}

void CacheFill::compute(std::span<const size_t> entries,
                        const std::function<uint64_t(int view)>& next_block) {
  each_view(entries, StoreStep::compute, next_block);
}

void CacheFill::each_view(std::span<const size_t> entries, StoreStep step,
                          const std::function<uint64_t(int view)>& next_block) {
  for (int view = 0; view < views_ && prefix_.cache != nullptr; ++view) {
    std::vector<std::filesystem::path> paths;
    std::vector<std::string> hashes;
    for (const size_t entry : entries)
      if (entry / hashes_.size() == static_cast<size_t>(view)) {
        paths.push_back(job_.paths[entry % hashes_.size()]);
        hashes.push_back(hashes_[entry % hashes_.size()]);
      }
    if (paths.empty()) continue;
    ImageJob images = image_job(job_, kImageBlock);
    images.paths = paths;
    images.hashes = hashes;
    if (!job_.augmentation.leaves_images()) {
      images.view = [&](const std::string& hash) {
        return draw_view(job_.augmentation, job_.seed, hash, static_cast<uint64_t>(view));
      };
      if (views_ > 1) images.label += fmt::format(", view {} of {}", view + 1, views_);
    }
    if (next_block) images.next_block = [&] { return next_block(view); };
    store_features(prefix_, images, step);
  }
}

bool CacheFill::read(size_t entry, FeatureSet::Values& out) {
  bool good = false;
  with_cache([&] { good = prefix_.cache->read_stored(set_, key(entry), elements_, out); });
  return good;
}

void CacheFill::write(std::vector<Received> received) {
  with_cache([&] {
    if (!std::exchange(used_, true))
      static_cast<void>(use_feature_set(prefix_, job_.preprocessing, prefix_.end));
    std::vector<FeatureSet::Entry> entries;
    entries.reserve(received.size());
    for (Received& one : received) entries.push_back({key(one.entry), std::move(one.values)});
    // Those that find no place are computed by whoever reads them.
    static_cast<void>(prefix_.cache->write_stored(set_, entries));
  });
}

}  // namespace graft
