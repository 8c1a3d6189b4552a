// Images of requests on their way to an answer: decoding beside computing, all of it bounded.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "graft/image.h"
#include "serve/inference_queue.h"
#include "serve/model_store.h"
#include "serve/work_pool.h"

namespace graft::serving {

/// An image as a request brings it.
struct SentImage {
  std::string name;
  std::string_view encoded;     ///< a file's bytes; or
  std::optional<Image> pixels;  ///< an image at any size
};

struct ImageResult {
  std::string error;  ///< why there is no answer; empty: there is one
  Prediction prediction{};
  std::vector<std::byte> map{};  ///< PNG, where it was asked for
};

/// The images of one request.
struct ImageTask {
  ModelPtr model;
  std::vector<SentImage> images;
  bool explain = false;
  std::stop_token gone;
  std::chrono::steady_clock::time_point deadline;
  /// Once, from one of the pipeline's threads. `given_up`: the client has gone, or the time is
  /// over; the results are incomplete.
  std::function<void(std::vector<ImageResult> results, bool given_up)> done;
};

/// Thread-safe.
class Pipeline {
 public:
  struct Options {
    int threads = 1;           ///< that decode
    size_t most_images = 256;  ///< here at once, of all requests
    int64_t most_pixels = 100'000'000;
    std::chrono::microseconds most_wait{2000};
  };
  explicit Pipeline(const Options& options);
  ~Pipeline();

  /// Takes places for so many images, or none where there are not as many: try later.
  [[nodiscard]] bool reserve(size_t images);
  /// Of as many images as were reserved; their places are free when it is done.
  void start(ImageTask task);
  /// Places that were reserved and are not used.
  void release(size_t images) { here_ -= images; }

  /// Decodes; throws Error(input) for what is no image or too large. Of large ones one at a time,
  /// so that memory is bounded.
  Image decode(const SentImage& image);
  /// Whether decode() would wait for another large image.
  [[nodiscard]] bool is_large(const SentImage& image) const;
  /// For work that is not images'.
  WorkPool& pool() { return pool_; }

  [[nodiscard]] QueueCounts counts() const { return queue_.counts(); }
  [[nodiscard]] size_t images_here() const { return here_; }

 private:
  struct Running;
  void prepare(const std::shared_ptr<Running>& task, size_t index, bool on_large_thread = false);
  void on_logits(const std::shared_ptr<Running>& task, size_t index, std::vector<float> logits,
                 const std::shared_ptr<std::pair<Image, Image>>& to_explain);
  void finish_one(const std::shared_ptr<Running>& task);

  Options options_;
  std::atomic<size_t> here_ = 0;
  std::mutex large_;  // held while a large image is in memory
  WorkPool large_pool_{1};
  WorkPool pool_;
  std::atomic<bool> stopping_ = false;
  InferenceQueue queue_;  // last: what it gives up goes through the pools
};

}  // namespace graft::serving
