#include "features/prefix_features.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <memory>
#include <numeric>
#include <optional>

#include "base/fail.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/progress.h"
#include "recipe/option_values.h"

namespace graft {
namespace {

// Raised when the engine's results change by more than rounding.
constexpr int kRevision = 1;
// Entries are stored together up to this size: each transaction waits for the disk.
constexpr size_t kWriteBytes = size_t{32} << 20U;
// And no later than after this time, which is what a kill can lose.
constexpr std::chrono::seconds kWriteTime{2};

int64_t elements_at(const Network& network, size_t end) {
  return output_shapes(network)[end - 1].elements();
}

/// The cache takes nothing more, and nobody waits for the features themselves.
struct NothingIsStored {};

class PrefixFeatures {
 public:
  using Sink = std::function<void(size_t, std::span<const float>)>;
  using OnError = std::function<void(size_t, const std::string&)>;

  PrefixFeatures(const PrefixJob& job, const ImageJob& images, const Sink& sink,
                 const OnError& on_error)
      : job_(job), images_(images), sink_(sink), on_error_(on_error), cache_(job.cache) {
    images_.batch = engine::batch_for(job.device, images.batch);
    // Layers of the head without parameters are in the prefix, but what is stored is of use to
    // every head.
    stored_end_ = stored_end(job);
    if (stored_end_ < job.end) {
      tail_ = executor(stored_end_, job.end);
      rest_of_prefix_.emplace(forward_of(*tail_), images_.batch, sink);
    }
  }

  void run() {
    try {
      send_all();
    } catch (...) {
      flush();  // nothing that was computed is lost to an interrupt
      throw;
    }
    images_.context.tell(
        Severity::detail,
        fmt::format("{}: {} from the cache, {} continued from an earlier layer, {} computed",
                    images_.label, cached_, continued_, computed_));
  }

  void store_only(StoreStep step) {
    std::vector<size_t> all(images_.paths.size());
    std::iota(all.begin(), all.end(), size_t{0});
    only_stores_ = true;
    try {
      with_cache([&] { open_set(); });
      if (cache_ == nullptr) return;
      if (step == StoreStep::compute) {
        compute(all);
      } else {
        make_keys();
        static_cast<void>(continue_from_earlier(all));
      }
      flush();
      images_.context.tell(
          Severity::detail,
          fmt::format("{}: this process's share: {} continued from an earlier layer, {} computed",
                      images_.label, continued_, computed_));
    } catch (const NothingIsStored&) {
      // The images are computed again by whoever needs them.
    } catch (...) {
      only_stores_ = false;
      flush();
      throw;
    }
  }

 private:
  void send_all() {
    std::vector<size_t> rest;
    with_cache([&] { open_set(); });
    if (cache_ == nullptr) {
      for (size_t i = 0; i < images_.paths.size(); ++i) rest.push_back(i);
    } else {
      make_keys();
      rest = send_cached();
      if (!rest.empty()) rest = continue_from_earlier(rest);
    }
    compute(rest);
    flush();
    if (rest_of_prefix_) rest_of_prefix_->flush();
  }

  /// A cache that fails costs time, never the run.
  void with_cache(const std::function<void()>& body) {
    if (cache_ == nullptr) return;
    try {
      body();
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::io) throw;
      if (cache_->is_news(error.what()))
        images_.context.tell(Severity::warning,
                             fmt::format("going on without the cache: {}", error.what()));
      cache_ = nullptr;
    }
  }

  void open_set() {
    set_ = use_feature_set(job_, images_.preprocessing, stored_end_);
    if (has_waypoint()) waypoint_set_ = use_feature_set(job_, images_.preprocessing, job_.waypoint);
  }

  [[nodiscard]] bool has_waypoint() const {
    return job_.waypoint > 1 && job_.waypoint < stored_end_;
  }

  /// Unreadable files get no key; they are reported when they are decoded.
  void make_keys() {
    keys_ = images_.hashes.empty()
                ? content_hashes(images_.paths, images_.context)
                : std::vector<std::string>(images_.hashes.begin(), images_.hashes.end());
    for (std::string& key : keys_)
      if (!key.empty()) key = view_key(images_, key);
  }

  /// Returns those that the cache does not have.
  std::vector<size_t> send_cached() {
    std::vector<size_t> missing;
    std::vector<size_t> there;
    for (size_t i = 0; i < keys_.size(); ++i) {
      bool found = false;
      if (!keys_[i].empty()) with_cache([&] { found = cache_->contains(set_, keys_[i]); });
      (found ? there : missing).push_back(i);
    }
    if (there.empty()) return missing;
    std::vector<float> values(static_cast<size_t>(elements_at(job_.network, stored_end_)));
    Progress progress(images_.context, images_.label + " from the cache", there.size(), "images");
    for (size_t k = 0; k < there.size(); ++k) {
      const size_t i = there[k];
      bool read = false;  // another process may have evicted it meanwhile, or it is damaged
      with_cache([&] { read = cache_->read(set_, keys_[i], values); });
      if (read) {
        send(i, values);
        ++cached_;
      } else {
        missing.push_back(i);
      }
      if (k % 256 == 255) {
        progress.update(k + 1);
        images_.context.check_stop();
      }
    }
    progress.update(there.size());
    std::sort(missing.begin(), missing.end());
    return missing;
  }

  /// Images whose features behind an earlier layer are stored take the rest of the way from
  /// there. Returns the others.
  std::vector<size_t> continue_from_earlier(const std::vector<size_t>& indices) {
    std::vector<size_t> rest = indices;
    for (size_t end = stored_end_ - 1; end > 1 && !rest.empty() && cache_ != nullptr; --end) {
      const std::string set = feature_set_id(job_, images_.preprocessing, end);
      bool there = false;
      with_cache([&] { there = cache_->has_set(set); });
      if (there) rest = continue_from(set, end, rest);
    }
    return rest;
  }

  std::vector<size_t> continue_from(const std::string& set, size_t end,
                                    const std::vector<size_t>& indices) {
    std::vector<size_t> missing;
    std::vector<size_t> found;
    for (const size_t i : indices) {
      bool there = false;
      if (!keys_[i].empty()) with_cache([&] { there = cache_->contains(set, keys_[i]); });
      (there ? found : missing).push_back(i);
    }
    if (found.empty()) return missing;
    const std::unique_ptr<engine::Executor> engine = executor(end, stored_end_);
    Batcher batcher(forward_of(*engine), images_.batch,
                    [&](size_t i, std::span<const float> values) {
                      store_and_send(i, keys_[i], values);
                      ++continued_;
                    });
    Progress progress(images_.context,
                      fmt::format("{}, from {}", images_.label, job_.network.layers[end - 1].name),
                      found.size(), "images");
    for (size_t k = 0; k < found.size(); ++k) {
      bool read = false;  // another process may have evicted it meanwhile
      with_cache([&] { read = cache_->read(set, keys_[found[k]], batcher.row()); });
      if (read)
        batcher.add(found[k]);
      else
        missing.push_back(found[k]);
      progress.update(k + 1);
      images_.context.check_stop();
    }
    batcher.flush();
    progress.finish();
    return missing;
  }

  void compute(const std::vector<size_t>& indices) {
    if (indices.empty()) return;
    const std::unique_ptr<engine::Executor> engine =
        executor(0, has_waypoint() ? job_.waypoint : stored_end_);
    std::unique_ptr<engine::Executor> onwards;  // from the waypoint
    std::optional<Batcher> batcher;
    std::vector<std::string> keys;  // of what is on its way
    if (has_waypoint()) {
      onwards = executor(job_.waypoint, stored_end_);
      keys.resize(images_.paths.size());
      batcher.emplace(
          forward_of(*onwards), images_.batch,
          [&](size_t i, std::span<const float> values) { store_and_send(i, keys[i], values); });
    }
    std::vector<std::filesystem::path> paths;
    paths.reserve(indices.size());
    std::vector<std::string> hashes;
    for (const size_t i : indices) {
      paths.push_back(images_.paths[i]);
      if (!images_.hashes.empty()) hashes.push_back(images_.hashes[i]);
    }
    ImageJob job = images_;
    job.paths = paths;
    job.hashes = hashes;
    job.needs_keys = true;  // from the bytes that are decoded: the file may have changed since
    stream_features(
        job, forward_of(*engine),
        [&](const StreamedImage& image, std::span<const float> values) {
          const size_t i = indices[image.index];
          ++computed_;
          if (!batcher) {
            store_and_send(i, image.key, values);
            return;
          }
          FeatureCache::Entry entry = rounded(image.key, values);
          keys[i] = image.key;
          batcher->add(i, entry.values);
          store(waypoint_set_, std::move(entry));
        },
        [&](size_t k, const std::string& message) { on_error_(indices[k], message); });
    if (batcher) batcher->flush();
  }

  [[nodiscard]] FeatureCache::Entry rounded(const std::string& key,
                                            std::span<const float> values) const {
    FeatureCache::Entry entry{key, {values.begin(), values.end()}};
    FeatureCache::round(entry.values, job_.dtype);
    return entry;
  }

  void store_and_send(size_t index, const std::string& key, std::span<const float> values) {
    FeatureCache::Entry entry = rounded(key, values);
    send(index, entry.values);
    store(set_, std::move(entry));
  }

  void store(const std::string& set, FeatureCache::Entry entry) {
    if (only_stores_ && (cache_ == nullptr || full_)) throw NothingIsStored();
    if (cache_ == nullptr || full_) return;
    waiting_bytes_ += entry.values.size() * sizeof(float);
    waiting_[set].push_back(std::move(entry));
    if (waiting_bytes_ >= kWriteBytes || Clock::now() - written_ > kWriteTime) flush();
  }

  /// Through the rest of the prefix, in batches, and to the caller.
  void send(size_t index, std::span<const float> values) {
    if (rest_of_prefix_)
      rest_of_prefix_->add(index, values);
    else
      sink_(index, values);
  }

  void flush() {
    if (waiting_.empty()) return;
    with_cache([&] {
      for (const auto& [set, entries] : waiting_)
        full_ = full_ || !cache_->write(set, entries, job_.dtype);
    });
    if (full_ && cache_ != nullptr && !said_full_)
      images_.context.tell(Severity::note,
                           "the feature cache is full: what follows is computed again in the "
                           "next run; see `cache-limit`");
    said_full_ = full_;
    waiting_.clear();
    waiting_bytes_ = 0;
    written_ = Clock::now();
    if (only_stores_ && (full_ || cache_ == nullptr)) throw NothingIsStored();
  }

  [[nodiscard]] std::unique_ptr<engine::Executor> executor(size_t begin, size_t end) const {
    engine::EngineOptions options;
    options.threads = images_.context.thread_count();
    options.max_batch = images_.batch;
    options.single_plan = false;
    options.precision = job_.precision;
    return engine::make_executor(job_.device, job_.network, begin, end, job_.tensors, options);
  }

  const PrefixJob& job_;
  ImageJob images_;
  const Sink& sink_;
  const OnError& on_error_;
  FeatureCache* cache_;
  size_t stored_end_ = 0;
  std::unique_ptr<engine::Executor> tail_;  // layers [stored_end_, job_.end)
  std::optional<Batcher> rest_of_prefix_;   // through the tail
  std::string set_;
  std::string waypoint_set_;
  std::vector<std::string> keys_;
  std::map<std::string, std::vector<FeatureCache::Entry>> waiting_;  // by set
  size_t waiting_bytes_ = 0;
  using Clock = std::chrono::steady_clock;
  Clock::time_point written_ = Clock::now();
  bool only_stores_ = false;
  bool full_ = false;
  bool said_full_ = false;
  size_t cached_ = 0;
  size_t continued_ = 0;  // from features of an earlier layer in the cache
  size_t computed_ = 0;   // from the image
};

}  // namespace

size_t stored_end(const PrefixJob& job) {
  size_t end = job.end;
  while (job.network.layers[end - 1].in_head) --end;
  return end;
}

std::string feature_set_id(const PrefixJob& job, const Preprocessing& preprocessing, size_t end) {
  const Network& net = job.network;
  std::string text =
      fmt::format("revision {} {} input {}x{} dtype {} bgr {} resampling {} crop {}\n", kRevision,
                  engine::numerics(job.device, job.precision), net.input_height, net.input_width,
                  job.dtype == FeatureType::fp16 ? 16 : 32, preprocessing.bgr,
                  static_cast<int>(preprocessing.resampling), preprocessing.crop_ratio);
  for (size_t c = 0; c < 3; ++c)
    text += fmt::format("{} {}\n", preprocessing.scale.at(c), preprocessing.shift.at(c));
  for (size_t i = 0; i < end; ++i) {
    const Layer& layer = net.layers[i];
    text += fmt::format("{} {} {} {}\n", to_string(layer.kind), layer.outputs, layer.epsilon,
                        layer.relu);
    if (const Window& w = layer.window; w != usual_window(layer.kind))
      text += fmt::format("window {} {} {} {}\n", w.kernel, w.stride, w.padding, w.groups);
  }
  for (const TensorSpec& spec : tensor_specs(net, 0, end))
    text += content_hash(std::as_bytes(job.tensors.at(spec.name).values())) + "\n";
  return content_hash(std::as_bytes(std::span(text)));
}

std::string use_feature_set(const PrefixJob& job, const Preprocessing& preprocessing, size_t end) {
  std::string set = feature_set_id(job, preprocessing, end);
  job.cache->use_set(set, {{"backbone", job.network.backbone},
                           {"until", job.network.layers[end - 1].name},
                           {"input", {job.network.input_height, job.network.input_width}},
                           {"dtype", options::word(job.dtype)},
                           {"precision", options::word(job.precision)},
                           {"elements", elements_at(job.network, end)}});
  return set;
}

bool has_earlier_features(const PrefixJob& job, const Preprocessing& preprocessing) {
  for (size_t end = stored_end(job) - 1; end > 1; --end)
    if (job.cache->has_set(feature_set_id(job, preprocessing, end))) return true;
  return false;
}

void store_features(const PrefixJob& job, const ImageJob& images, StoreStep step) {
  PrefixFeatures(
      job, images, [](size_t, std::span<const float>) {}, [](size_t, const std::string&) {})
      .store_only(step);
}

void prefix_features(const PrefixJob& job, const ImageJob& images,
                     const std::function<void(size_t, std::span<const float>)>& sink,
                     const std::function<void(size_t, const std::string&)>& on_error) {
  PrefixFeatures(job, images, sink, on_error).run();
}

}  // namespace graft
