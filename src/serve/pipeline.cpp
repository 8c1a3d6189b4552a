#include "serve/pipeline.h"

#include <algorithm>
#include <new>
#include <span>

#include "base/fail.h"
#include "image/codecs.h"

namespace graft::serving {
namespace {

using Clock = std::chrono::steady_clock;

/// Decoding takes up to 16 bytes a pixel (DecodeLimits): 200 MB, once for each decoding thread.
constexpr int64_t kLargePixels = 12'000'000;

/// As large as a page shows it.
constexpr double kMostShown = 512;

Image shown_size(const Image& image) {
  const double scale = std::min(1.0, kMostShown / std::max(image.width, image.height));
  return resize(image, std::max(1, static_cast<int>(image.width * scale)),
                std::max(1, static_cast<int>(image.height * scale)), Resampling::bilinear);
}

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

}  // namespace

struct Pipeline::Running {
  explicit Running(ImageTask the_task)
      : task(std::move(the_task)), results(task.images.size()), left(task.images.size()) {}

  [[nodiscard]] bool is_given_up() const {
    return task.gone.stop_requested() || task.deadline < Clock::now();
  }

  ImageTask task;
  std::vector<ImageResult> results;
  std::atomic<size_t> left;
  std::atomic<bool> given_up = false;
};

Pipeline::Pipeline(const Options& options)
    : options_(options), pool_(options.threads), queue_(options.most_wait) {}

Pipeline::~Pipeline() {
  stopping_ = true;
  pool_.stop();
  large_pool_.stop();
}

bool Pipeline::reserve(size_t images) {
  size_t before = here_;
  while (before + images <= options_.most_images)
    if (here_.compare_exchange_weak(before, before + images)) return true;
  return false;
}

void Pipeline::start(ImageTask task) {
  auto running = std::make_shared<Running>(std::move(task));
  const size_t images = running->task.images.size();
  queue_.announce(images);
  for (size_t i = 0; i < images; ++i) pool_.add([this, running, i] { prepare(running, i); });
}

bool Pipeline::is_large(const SentImage& image) const {
  if (image.pixels) return false;
  const ImageFacts facts = probe_image(bytes_of(image.encoded), image.name);
  return facts.width > kLargePixels / std::max<int64_t>(facts.height, 1);
}

Image Pipeline::decode(const SentImage& image) {
  if (image.pixels) return *image.pixels;
  const DecodeLimits limits{.max_pixels = options_.most_pixels};
  std::unique_lock<std::mutex> alone(large_, std::defer_lock);
  if (is_large(image)) alone.lock();
  return decode_image(bytes_of(image.encoded), image.name, limits);
}

void Pipeline::prepare(const std::shared_ptr<Running>& task, size_t index, bool on_large_thread) {
  ImageResult& result = task->results[index];
  if (stopping_ || task->is_given_up()) {
    task->given_up = true;
    queue_.withdraw();
    return finish_one(task);
  }
  Inference inference;
  std::shared_ptr<std::pair<Image, Image>> to_explain;
  try {
    const SentImage& sent = task->task.images[index];
    // Others' images go before the large ones, which wait for each other on a thread of their own.
    if (!on_large_thread && is_large(sent))
      return large_pool_.add([this, task, index] { prepare(task, index, true); });
    const ModelInfo& info = task->task.model->info();
    const Image image = decode(sent);
    Image fitted =
        fit_image(image, info.network.input_width, info.network.input_height, info.preprocessing);
    inference.input.resize(task->task.model->classifier().input_elements());
    to_input(fitted, info.preprocessing, inference.input.data());
    if (task->task.explain)
      to_explain = std::make_shared<std::pair<Image, Image>>(std::move(fitted), shown_size(image));
  } catch (const Error& error) {
    result.error = error.what();
  } catch (const std::bad_alloc&) {
    result.error = task->task.images[index].name + ": there is not enough memory for it now";
  }
  if (!result.error.empty()) {
    queue_.withdraw();
    return finish_one(task);
  }
  inference.model = task->task.model;
  inference.gone = task->task.gone;
  inference.deadline = task->task.deadline;
  inference.done = [this, task, index, to_explain](std::vector<float> logits) {
    on_logits(task, index, std::move(logits), to_explain);
  };
  queue_.add(std::move(inference));
}

void Pipeline::on_logits(const std::shared_ptr<Running>& task, size_t index,
                         std::vector<float> logits,
                         const std::shared_ptr<std::pair<Image, Image>>& to_explain) {
  ImageResult& result = task->results[index];
  if (logits.empty()) {
    task->given_up = true;
    return finish_one(task);
  }
  try {
    result.prediction = to_prediction(logits);
  } catch (const Error& error) {
    result.error = task->task.images[index].name + ": " + error.what();
  }
  if (!to_explain || !result.error.empty()) return finish_one(task);
  queue_.add_task([this, task, index, to_explain] {
    ImageResult& mapped = task->results[index];
    if (task->is_given_up()) {
      task->given_up = true;
      return finish_one(task);
    }
    try {
      mapped.map = task->task.model->explain(to_explain->first, to_explain->second);
    } catch (const std::exception& error) {
      mapped.error = task->task.images[index].name + ": " + error.what();
    }
    finish_one(task);
  });
}

void Pipeline::finish_one(const std::shared_ptr<Running>& task) {
  if (--task->left > 0) return;
  const size_t images = task->task.images.size();
  // Not on the queue's thread, which has better to do than to write replies.
  pool_.add([this, task, images] {
    task->task.done(std::move(task->results), task->given_up);
    here_ -= images;
  });
}

}  // namespace graft::serving
