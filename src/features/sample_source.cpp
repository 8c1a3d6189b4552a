#include "features/sample_source.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/fail.h"
#include "base/file.h"
#include "base/half.h"
#include "base/hash.h"
#include "base/helper_process.h"
#include "base/threads.h"
#include "features/image_stream.h"

namespace graft {

ImageJob image_job(const SourceJob& job, int batch) {
  return {.paths = job.paths,
          .height = job.network.input_height,
          .width = job.network.input_width,
          .preprocessing = job.preprocessing,
          .batch = batch,
          .label = job.label,
          .context = job.context,
          .hashes = job.hashes};
}

namespace {

using OnError = std::function<void(size_t, const std::string&)>;

/// The view that an epoch shows of the image at that place in the list.
uint64_t view_number(int views, int epoch, size_t image) {
  const auto e = static_cast<uint64_t>(epoch);
  return views == 0 ? e : (e + image) % static_cast<uint64_t>(views);
}

std::function<View(const std::string&)> views_of(const SourceJob& job, uint64_t number) {
  return [&job, number](const std::string& hash) {
    return draw_view(job.augmentation, job.seed, hash, number);
  };
}

/// Layers [begin, end) of the job's prefix.
std::unique_ptr<engine::Executor> prefix_executor(const SourceJob& job, size_t begin, size_t end) {
  const PrefixJob& prefix = *job.prefix;
  engine::EngineOptions options;
  options.threads = job.context.thread_count();
  options.single_plan = false;
  options.precision = prefix.precision;
  return engine::make_executor(prefix.device, prefix.network, begin, end, prefix.tensors, options);
}

int64_t input_elements(const SourceJob& job) {
  return job.prefix == nullptr ? int64_t{3} * job.network.input_height * job.network.input_width
                               : output_shapes(job.network)[job.prefix->end - 1].elements();
}

/// The features of each view of each image, from prefix_features(): `sink(image, view,
/// values)`.
void all_views(const SourceJob& job, const PrefixJob& prefix, const OnError& on_error,
               const std::function<void(size_t, int, std::span<const float>)>& sink) {
  std::vector<bool> reported(job.paths.size());
  for (int view = 0; view < job.views; ++view) {
    ImageJob images = image_job(job, 16);
    if (!job.augmentation.leaves_images()) {
      images.view = views_of(job, static_cast<uint64_t>(view));
      if (job.views > 1) images.label += fmt::format(", view {} of {}", view + 1, job.views);
    }
    prefix_features(
        prefix, images, [&](size_t i, std::span<const float> values) { sink(i, view, values); },
        [&](size_t i, const std::string& message) {
          if (!reported[i]) on_error(i, message);
          reported[i] = true;
        });
  }
}

/// Counts the views that arrived; images that lack one are left out.
class Arrivals {
 public:
  explicit Arrivals(size_t images) : seen_(images) {}
  void add(size_t image) { ++seen_[image]; }
  [[nodiscard]] std::vector<size_t> complete(int views) const {
    std::vector<size_t> out;
    for (size_t i = 0; i < seen_.size(); ++i)
      if (seen_[i] == views) out.push_back(i);
    return out;
  }

 private:
  std::vector<int> seen_;
};

class FeaturesInMemory : public SampleSource {
 public:
  FeaturesInMemory(const SourceJob& job, const OnError& on_error)
      : elements_(static_cast<size_t>(input_elements(job))),
        views_(job.views),
        rows_(job.paths.size() * static_cast<size_t>(job.views)) {
    // The values are rounded to halves already: nothing is lost by keeping them as such.
    if (job.prefix->dtype == FeatureType::fp16 && stored_end(*job.prefix) == job.prefix->end)
      halves_ = std::make_unique_for_overwrite<uint16_t[]>(rows_ * elements_);
    else
      floats_ = std::make_unique_for_overwrite<float[]>(rows_ * elements_);
    Arrivals arrivals(job.paths.size());
    SourceJob known = job;
    std::vector<std::string> hashes;  // once for all views
    if (job.prefix->cache != nullptr && job.hashes.empty()) {
      hashes = content_hashes(job.paths, job.context);
      known.hashes = hashes;
    }
    all_views(known, *job.prefix, on_error, [&](size_t i, int view, std::span<const float> values) {
      put(row(i, static_cast<uint64_t>(view)), values);
      arrivals.add(i);
    });
    usable_ = arrivals.complete(views_);
  }

  std::vector<size_t> fill(std::span<const int64_t> rows, int epoch, float* out) override {
    for (const int64_t r : rows) {
      const size_t image = usable_[static_cast<size_t>(r)];
      const size_t from = row(image, view_number(views_, epoch, image)) * elements_;
      if (floats_)
        std::copy_n(&floats_[from], elements_, out);
      else
        std::transform(&halves_[from], &halves_[from + elements_], out, from_half);
      out += elements_;
    }
    return {};
  }

 private:
  [[nodiscard]] size_t row(size_t image, uint64_t view) const {
    return image * static_cast<size_t>(views_) + view;
  }

  void put(size_t row, std::span<const float> values) {
    const auto too_large = [](float v) { return !(std::abs(v) < kHalfLimit); };
    if (!floats_ && std::any_of(values.begin(), values.end(), too_large)) {
      floats_ = std::make_unique_for_overwrite<float[]>(rows_ * elements_);
      std::transform(&halves_[0], &halves_[rows_ * elements_], &floats_[0], from_half);
      halves_.reset();
    }
    if (floats_)
      std::copy(values.begin(), values.end(), &floats_[row * elements_]);
    else
      std::transform(values.begin(), values.end(), &halves_[row * elements_], to_half);
  }

  size_t elements_;
  int views_;
  size_t rows_;
  // (images, views, elements), one of the two. Not vectors: their zeros would cost seconds.
  std::unique_ptr<uint16_t[]> halves_;
  std::unique_ptr<float[]> floats_;
};

/// Images, kept at the network's input size (or, where views are cut out of them, read again),
/// turned into views, and sent through the prefix if there is one.
class ImageSource : public SampleSource {
 public:
  ImageSource(const SourceJob& job, const OnError& on_error)
      : job_(job),
        network_(job.network),
        paths_(job.paths.begin(), job.paths.end()),
        keeps_pixels_(!job.augmentation.crops()),
        pixels_(size_t{3} * job.network.input_height * job.network.input_width),
        hashes_(job.paths.size()),
        pool_(job.context.thread_count()) {
    job_.paths = paths_;
    if (job.prefix != nullptr) {
      const PrefixJob& prefix = *job.prefix;
      // Views that stay the same might as well have come from the cache, and are what it would
      // give.
      dtype_ = job.views > 0 ? prefix.dtype : FeatureType::fp32;
      const size_t stored = dtype_ == FeatureType::fp32 ? prefix.end : stored_end(prefix);
      engine_ = prefix_executor(job, 0, stored);
      if (stored < prefix.end) tail_ = prefix_executor(job, stored, prefix.end);
    }
    if (keeps_pixels_) kept_ = std::make_unique_for_overwrite<uint8_t[]>(paths_.size() * pixels_);
    ImageJob images = image_job(job, 64);
    images.needs_keys = true;
    stream_images(
        images,
        [&](const StreamedImage& image) {
          const std::vector<uint8_t>& pixels = image.image.pixels;
          if (keeps_pixels_) std::copy(pixels.begin(), pixels.end(), &kept_[image.index * pixels_]);
          hashes_[image.index] = image.key;
          usable_.push_back(image.index);
        },
        on_error);
    job_.prefix = nullptr;  // the caller's, and used up
    job_.hashes = {};
  }

  std::vector<size_t> fill(std::span<const int64_t> rows, int epoch, float* out) override {
    if (!engine_) return make_inputs(rows, epoch, out);
    inputs_.resize(rows.size() * pixels_);
    std::vector<size_t> lost = make_inputs(rows, epoch, inputs_.data());
    const size_t count = rows.size() - lost.size();
    if (count == 0) return lost;
    const auto each = static_cast<size_t>(engine_->output_elements());
    if (tail_) waiting_.resize(rows.size() * each);
    float* features = tail_ ? waiting_.data() : out;
    engine_->run(inputs_.data(), static_cast<int>(count), features);
    for (size_t k = 0; k < count; ++k) FeatureCache::round({features + k * each, each}, dtype_);
    if (tail_) tail_->run(waiting_.data(), static_cast<int>(count), out);
    return lost;
  }

 private:
  /// Returns the places of rows that could not be read, for which nothing is written.
  std::vector<size_t> make_inputs(std::span<const int64_t> rows, int epoch, float* out) {
    std::vector<char> good(rows.size());  // not bool: written from several threads
    pool_.parallel_for(rows.size(), [&](size_t k) {
      try {
        const Image image = image_of(usable_[static_cast<size_t>(rows[k])], epoch);
        to_input(image, job_.preprocessing, out + k * pixels_);
        good[k] = 1;
      } catch (const HelperUnavailable&) {
        throw;
      } catch (const Error&) {
        // Read once before: the file has been removed or changed since.
      }
    });
    std::vector<size_t> lost;
    size_t to = 0;
    for (size_t k = 0; k < rows.size(); ++k) {
      if (good[k] == 0) {
        lost.push_back(k);
        continue;
      }
      if (to < k) std::copy_n(out + k * pixels_, pixels_, out + to * pixels_);
      ++to;
    }
    return lost;
  }

  [[nodiscard]] Image image_of(size_t i, int epoch) const {
    const View view =
        draw_view(job_.augmentation, job_.seed, hashes_[i], view_number(job_.views, epoch, i));
    if (!keeps_pixels_)
      return make_view(load_known_image(paths_[i], hashes_[i]), network_.input_width,
                       network_.input_height, job_.preprocessing, view);
    const uint8_t* first = &kept_[i * pixels_];
    return apply_view({network_.input_width, network_.input_height, {first, first + pixels_}},
                      view);
  }

  SourceJob job_;
  Network network_;
  std::vector<std::filesystem::path> paths_;
  bool keeps_pixels_;
  size_t pixels_;  // values of one image
  std::unique_ptr<uint8_t[]> kept_;
  std::vector<std::string> hashes_;
  ThreadPool pool_;
  std::unique_ptr<engine::Executor> engine_;
  std::unique_ptr<engine::Executor> tail_;  // behind what is rounded
  FeatureType dtype_ = FeatureType::fp32;
  std::vector<float> inputs_;
  std::vector<float> waiting_;
};

/// Features that do not fit into memory, read from the cache as they are needed. Those that another
/// process has driven out of it are computed again.
class FeaturesInCache : public SampleSource {
 public:
  /// All features are in the cache afterwards; if they do not fit there, this is not usable.
  FeaturesInCache(const SourceJob& job, const OnError& on_error)
      : job_(job),
        prefix_(*job.prefix),
        paths_(job.paths.begin(), job.paths.end()),
        hashes_(job.hashes.empty()
                    ? content_hashes(job.paths, job.context)
                    : std::vector<std::string>(job.hashes.begin(), job.hashes.end())),
        stored_(stored_end(prefix_)),
        set_(feature_set_id(prefix_, job.preprocessing, stored_)) {
    job_.paths = paths_;
    job_.prefix = &prefix_;
    job_.hashes = hashes_;
    Arrivals arrivals(paths_.size());
    PrefixJob stored = prefix_;
    stored.end = stored_;
    all_views(job_, stored, on_error,
              [&](size_t i, int, std::span<const float>) { arrivals.add(i); });
    usable_ = arrivals.complete(job_.views);
    if (stored_ < prefix_.end) tail_ = prefix_executor(job_, stored_, prefix_.end);
    elements_ = static_cast<size_t>(output_shapes(prefix_.network)[stored_ - 1].elements());
  }

  [[nodiscard]] bool all_there() const {
    for (const size_t i : usable_)
      for (int view = 0; view < job_.views; ++view)
        if (!prefix_.cache->contains(set_, key(i, static_cast<uint64_t>(view)))) return false;
    return true;
  }

  std::vector<size_t> fill(std::span<const int64_t> rows, int epoch, float* out) override {
    if (tail_) waiting_.resize(rows.size() * elements_);
    float* to = tail_ ? waiting_.data() : out;
    std::vector<size_t> lost;
    for (size_t k = 0; k < rows.size(); ++k) {
      const size_t i = usable_[static_cast<size_t>(rows[k])];
      const uint64_t view = view_number(job_.views, epoch, i);
      const std::span<float> values(to + (k - lost.size()) * elements_, elements_);
      if (!prefix_.cache->read(set_, key(i, view), values) && !compute(i, view, values))
        lost.push_back(k);
    }
    const size_t good = rows.size() - lost.size();
    if (tail_ && good > 0) tail_->run(waiting_.data(), static_cast<int>(good), out);
    return lost;
  }

 private:
  [[nodiscard]] View view_at(size_t i, uint64_t view) const {
    return draw_view(job_.augmentation, job_.seed, hashes_[i], view);
  }
  [[nodiscard]] std::string key(size_t i, uint64_t view) const {
    return hashes_[i] + view_at(i, view).id();
  }

  /// False for an image that can no longer be read.
  bool compute(size_t i, uint64_t view, std::span<float> values) {
    if (!engine_) engine_ = prefix_executor(job_, 0, stored_);
    const Network& net = prefix_.network;
    std::vector<float> input(size_t{3} * net.input_height * net.input_width);
    try {
      to_input(make_view(load_known_image(paths_[i], hashes_[i]), net.input_width, net.input_height,
                         job_.preprocessing, view_at(i, view)),
               job_.preprocessing, input.data());
    } catch (const HelperUnavailable&) {
      throw;
    } catch (const Error&) {
      return false;
    }
    engine_->run(input.data(), 1, values.data());
    FeatureCache::round(values, prefix_.dtype);
    return true;
  }

  SourceJob job_;
  PrefixJob prefix_;
  std::vector<std::filesystem::path> paths_;
  std::vector<std::string> hashes_;
  size_t stored_;
  std::string set_;
  size_t elements_ = 0;  // of what is stored
  std::unique_ptr<engine::Executor> tail_;
  std::unique_ptr<engine::Executor> engine_;
  std::vector<float> waiting_;
};

}  // namespace

std::unique_ptr<SampleSource> make_sample_source(
    const SourceJob& job, const std::function<void(size_t, const std::string&)>& on_error) {
  if (job.prefix == nullptr || job.views == 0) return std::make_unique<ImageSource>(job, on_error);
  if (job.keep_features) return std::make_unique<FeaturesInMemory>(job, on_error);
  if (job.prefix->cache != nullptr) {
    // Images that cannot be read are reported once, by whichever source is used in the end.
    std::vector<std::pair<size_t, std::string>> errors;
    auto cached = std::make_unique<FeaturesInCache>(
        job, [&](size_t i, const std::string& message) { errors.emplace_back(i, message); });
    if (cached->all_there()) {
      for (const auto& [i, message] : errors) on_error(i, message);
      return cached;
    }
    job.context.tell(
        Severity::warning,
        fmt::format("{}: they fit neither into memory nor into the cache, so they are computed in "
                    "every epoch; a larger `cache-limit` makes that faster",
                    job.label));
  }
  return std::make_unique<ImageSource>(job, on_error);
}

}  // namespace graft
