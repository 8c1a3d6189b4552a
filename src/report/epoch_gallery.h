// What the last epoch got wrong, as photos for the dashboard.
#pragma once

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "graft/image.h"
#include "graft/train.h"

namespace graft {

/// Draws on a thread of its own: photos after every epoch, and with Grad-CAM where somebody looks.
/// For that the epoch's checkpoint is read from the run's folder; it takes one processor at most a
/// tenth of the time, so that in fast runs the maps are of an earlier epoch, and is left out where
/// memory is short.
class EpochGallery {
 public:
  explicit EpochGallery(std::filesystem::path run);
  ~EpochGallery();
  EpochGallery(const EpochGallery&) = delete;
  EpochGallery& operator=(const EpochGallery&) = delete;

  void show(int epoch, std::vector<EpochMistake> worst);
  /// Somebody looks at the page.
  void watched();
  /// Changes with what page() gives.
  [[nodiscard]] int version() const;
  /// HTML to stand in a page; empty before the first epoch.
  [[nodiscard]] std::string page() const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Photo {
    EpochMistake mistake;
    std::string image;  // HTML
    std::string map;
  };
  struct Gallery {
    int epoch = 0;
    std::vector<Photo> photos;
  };

  void work();
  [[nodiscard]] Gallery photos_of(int epoch, const std::vector<EpochMistake>& worst);
  [[nodiscard]] bool explain(Gallery& gallery);
  [[nodiscard]] bool explaining_is_due(Clock::time_point now) const;
  [[nodiscard]] bool stopping() const;

  std::filesystem::path run_;
  std::map<std::filesystem::path, Image> small_;  // of the worker alone: images read before
  Clock::time_point next_explanation_;            // of the worker alone
  mutable std::mutex mutex_;                      // guards what follows
  std::condition_variable changed_;
  bool stop_ = false;
  int asked_epoch_ = 0;  // of what is to be shown
  std::vector<EpochMistake> asked_;
  Clock::time_point watched_{};
  Gallery last_;
  Gallery explained_;
  int version_ = 0;
  std::thread worker_;  // last: it uses the rest
};

}  // namespace graft
