#include "features/image_stream.h"

#include <algorithm>
#include <deque>
#include <future>
#include <memory>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/helper_process.h"
#include "base/limits.h"
#include "base/memory.h"
#include "base/prefetch.h"
#include "base/progress.h"
#include "base/threads.h"
#include "image/sheet.h"

namespace graft {
namespace {

using Images = std::vector<StreamedImage>;

/// Batches between decoding and their results. On a device with several lanes one more is being
/// converted, so that none of them waits for it.
int batches_at_once(const Forward& forward) { return forward.lanes > 1 ? forward.lanes + 1 : 1; }

/// What images at once take, and whether that fits.
class MemoryCheck {
 public:
  MemoryCheck(const ImageJob& job, const Forward& forward) : job_(job), forward_(forward) {
    if (available_ > 0) available_ += freed_memory();
  }

  [[nodiscard]] uint64_t needed(int batch) const {
    // Used, two ready, one being decoded.
    const uint64_t batches = 3 + static_cast<uint64_t>(batches_at_once(forward_));
    const uint64_t pixels = uint64_t{3} * job_.height * job_.width;
    const uint64_t floats =
        (forward_.inputs + forward_.outputs) * static_cast<uint64_t>(batches_at_once(forward_));
    return forward_.estimate(batch) + (floats * sizeof(float) + batches * pixels) * batch;
  }
  [[nodiscard]] bool fits(uint64_t bytes) const {
    return available_ == 0 ||
           static_cast<double>(bytes) <= kUsableShare * static_cast<double>(available_);
  }
  void require(uint64_t bytes) const {
    if (!fits(bytes))
      fail(ErrorKind::memory,
           "{} needs about {} of memory for an image of {}x{}, and {} are available; {}use a "
           "smaller "
           "input size or free memory",
           job_.label, format_bytes(static_cast<double>(bytes) / kUsableShare), job_.width,
           job_.height, format_bytes(static_cast<double>(available_)),
           address_space_limit() ? "raise the limit on address space (ulimit -v), "
           : data_limit()        ? "raise the limit on data (ulimit -d), "
                                 : "");
  }

 private:
  // The rest is for the system and what an estimate misses.
  static constexpr double kUsableShare = 0.9;

  const ImageJob& job_;
  const Forward& forward_;
  uint64_t available_ = available_memory();
};

/// Images at once: as many as there are, as asked for and as memory allows.
int fitting_batch(const ImageJob& job, const Forward& forward) {
  const MemoryCheck memory(job, forward);
  int batch = static_cast<int>(std::min(static_cast<size_t>(job.batch), job.paths.size()));
  while (batch > 1 && !memory.fits(memory.needed(batch))) batch = (batch + 1) / 2;
  memory.require(memory.needed(batch));
  return batch;
}

void require_content(const std::filesystem::path& path, const std::string& got,
                     const std::string& expected) {
  if (!expected.empty() && got != expected)
    fail(ErrorKind::input, "{}: has changed since the images were first read", printable(path));
}

using Sink = std::function<void(const StreamedImage&, std::span<const float>)>;
using OnError = std::function<void(size_t, const std::string&)>;

/// Batches that are computed beside each other, each on a thread of its own, whose results come in
/// the order of the images.
class Lanes {
 public:
  Lanes(const ImageJob& job, const Forward& forward, const Sink& sink, const OnError& on_error)
      : job_(job), forward_(forward), sink_(sink), on_error_(on_error) {}

  /// Returns how many images the sink has had by then.
  size_t add(Images images) {
    auto batch = std::make_unique<Batch>();
    batch->images = std::move(images);
    Batch& b = *batch;
    b.done = std::async(std::launch::async, [this, &b] { compute(b); });
    flying_.push_back(std::move(batch));
    while (flying_.size() >= static_cast<size_t>(batches_at_once(forward_))) land();
    return landed_;
  }
  size_t finish() {
    while (!flying_.empty()) land();
    return landed_;
  }

 private:
  struct Batch {
    Images images;
    std::vector<float> inputs;
    std::vector<float> outputs;
    std::future<void> done;  // last: whoever destroys it waits for what uses the rest
  };

  void compute(Batch& b) const {
    b.inputs.resize(b.images.size() * forward_.inputs);
    size_t rows = 0;
    for (const StreamedImage& image : b.images)
      if (image.error.empty())
        to_input(image.image, job_.preprocessing, &b.inputs[rows++ * forward_.inputs]);
    if (rows == 0) return;
    b.outputs.resize(rows * forward_.outputs);
    forward_.run(b.inputs.data(), static_cast<int>(rows), b.outputs.data());
  }

  void land() {
    const std::unique_ptr<Batch> batch = std::move(flying_.front());
    flying_.pop_front();
    batch->done.get();
    size_t row = 0;
    for (const StreamedImage& image : batch->images) {
      if (image.error.empty())
        sink_(image, {&batch->outputs[row++ * forward_.outputs], forward_.outputs});
      else
        on_error_(image.index, image.error);
    }
    landed_ += batch->images.size();
  }

  const ImageJob& job_;
  const Forward& forward_;
  const Sink& sink_;
  const OnError& on_error_;
  std::deque<std::unique_ptr<Batch>> flying_;
  size_t landed_ = 0;
};

}  // namespace

Image load_known_image(const std::filesystem::path& path, const std::string& hash) {
  const std::vector<std::byte> bytes = read_file(path);
  if (!hash.empty()) require_content(path, content_hash(bytes), hash);
  return decode_image(bytes, printable(path));
}

std::string view_key(const ImageJob& job, const std::string& hash) {
  return job.view ? hash + job.view(hash).id() : hash;
}

struct ImageStream::State {
  explicit State(const ImageJob& the_job) : job(the_job), pool(job.context.thread_count()) {}

  std::optional<Images> decode() {
    if (at >= end) take_block();
    if (at >= end) return std::nullopt;
    Images images(std::min(static_cast<size_t>(job.batch), end - at));
    pool.parallel_for(images.size(), [&](size_t i) { images[i] = load(at + i); });
    at += images.size();
    return images;
  }

  void take_block() {
    if (!job.next_block) return;
    const uint64_t blocks = (job.paths.size() + kImageBlock - 1) / kImageBlock;
    at = std::min(job.next_block(), blocks) * kImageBlock;
    end = std::min(at + kImageBlock, job.paths.size());
  }

  [[nodiscard]] StreamedImage load(size_t index) const {
    StreamedImage out;
    out.index = index;
    try {
      const std::vector<std::byte> bytes = read_file(job.paths[index]);
      std::string hash;
      if (job.needs_keys || job.view || !job.hashes.empty()) hash = content_hash(bytes);
      if (!job.hashes.empty()) require_content(job.paths[index], hash, job.hashes[index]);
      if (job.needs_keys) out.key = view_key(job, hash);
      Image source = decode_image(bytes, printable(job.paths[index]));
      out.image = make_view(source, job.width, job.height, job.preprocessing,
                            job.view ? job.view(hash) : View());
      if (job.thumbnail > 0) out.thumbnail = fit_inside(source, job.thumbnail);
      if (job.keeps_source) out.source = std::move(source);
    } catch (const HelperUnavailable&) {
      throw;
    } catch (const Error& error) {
      out.error = error.what();
    }
    return out;
  }

  const ImageJob& job;
  ThreadPool pool;
  // Those to be decoded next: [at, end).
  size_t at = 0;
  size_t end = job.next_block ? 0 : job.paths.size();
  Prefetch<Images> ahead{[this] { return decode(); }};  // last: it uses the rest
};

ImageStream::ImageStream(const ImageJob& job) : state_(std::make_unique<State>(job)) {}
ImageStream::~ImageStream() = default;

std::optional<Images> ImageStream::next() { return state_->ahead.next(); }

void require_memory(const ImageJob& job, const Forward& forward, uint64_t times) {
  const MemoryCheck memory(job, forward);
  memory.require(times * memory.needed(1));
}

void stream_images(const ImageJob& job, const std::function<void(const StreamedImage&)>& sink,
                   const std::function<void(size_t, const std::string&)>& on_error) {
  Progress progress(job.context, job.label, job.paths.size(), "images");
  ImageStream stream(job);
  size_t done = 0;
  while (const auto images = stream.next()) {
    for (const StreamedImage& image : *images) {
      if (image.error.empty())
        sink(image);
      else
        on_error(image.index, image.error);
    }
    done += images->size();
    progress.update(done);
    job.context.check_stop();
  }
  progress.finish();
}

void stream_features(const ImageJob& job, const Forward& forward,
                     const std::function<void(const StreamedImage&, std::span<const float>)>& sink,
                     const std::function<void(size_t, const std::string&)>& on_error) {
  if (job.paths.empty()) return;
  ImageJob fitting = job;
  fitting.batch = fitting_batch(job, forward);
  ImageStream stream(fitting);
  // Weights are packed while the first images are decoded, and before the clock starts.
  forward.prepare(fitting.batch);
  Progress progress(job.context, job.label, job.paths.size(), "images");
  size_t done = 0;
  std::optional<Images> images;
  if (forward.lanes > 1) {
    Lanes lanes(fitting, forward, sink, on_error);
    while ((images = stream.next())) {
      progress.update(lanes.add(std::move(*images)));
      job.context.check_stop();
    }
    progress.update(lanes.finish());
    progress.finish();
    return;
  }
  std::deque<const StreamedImage*> errors;  // of this batch, told in the order of the paths
  const auto tell_errors = [&](size_t before) {
    for (; !errors.empty() && errors.front()->index < before; errors.pop_front())
      on_error(errors.front()->index, errors.front()->error);
  };
  Batcher batcher(forward, fitting.batch, [&](size_t number, std::span<const float> values) {
    const StreamedImage& image = (*images)[number];
    tell_errors(image.index);
    sink(image, values);
  });
  while ((images = stream.next())) {
    for (const StreamedImage& image : *images)
      if (!image.error.empty()) errors.push_back(&image);
    for (size_t k = 0; k < images->size(); ++k) {
      if (!(*images)[k].error.empty()) continue;
      to_input((*images)[k].image, job.preprocessing, batcher.row().data());
      batcher.add(k);
    }
    batcher.flush();
    tell_errors(job.paths.size());
    done = images->back().index + 1;  // of all processes' images, where they are shared out
    progress.update(done);
    job.context.check_stop();
  }
  progress.finish();
}

}  // namespace graft
