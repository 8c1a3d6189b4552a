#include "report/epoch_gallery.h"

#include <fmt/format.h>

#include <algorithm>
#include <new>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "base/memory.h"
#include "model/gradcam.h"
#include "report/html.h"
#include "report/photos.h"

namespace graft {
namespace {

constexpr int kSide = 192;
constexpr size_t kMostKept = 200;  // small images, 100 KB each
constexpr std::chrono::seconds kWatched{10};
constexpr int kShareOfTime = 10;  // one part in so many
// The file's tensors, their packed copies, buffers.
constexpr uint64_t kMemoryOfModel = 4;

constexpr const char* kNoMap = "<div class=\"tile\"><span>no map yet</span></div>";

std::string section(std::string_view heading, const std::string& figures) {
  return fmt::format("<section>\n<h2>{}</h2>\n<div class=\"grid pairs\">\n{}</div>\n</section>\n",
                     html::escape(heading), figures);
}

}  // namespace

EpochGallery::EpochGallery(std::filesystem::path run)
    : run_(std::move(run)), worker_([this] { work(); }) {}

EpochGallery::~EpochGallery() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  worker_.join();
}

void EpochGallery::show(int epoch, std::vector<EpochMistake> worst) {
  {
    const std::lock_guard lock(mutex_);
    asked_epoch_ = epoch;
    asked_ = std::move(worst);
  }
  changed_.notify_all();
}

void EpochGallery::watched() {
  const std::lock_guard lock(mutex_);
  watched_ = Clock::now();
}

int EpochGallery::version() const {
  const std::lock_guard lock(mutex_);
  return version_;
}

std::string EpochGallery::page() const {
  const std::lock_guard lock(mutex_);
  if (last_.epoch == 0) return "";
  // A photo stands there once, with the map of an earlier epoch where this one has none yet.
  const auto map_of = [&](const EpochMistake& m) -> std::string {
    for (const Photo& photo : explained_.photos)
      if (photo.mistake.path == m.path && photo.mistake.predicted_class == m.predicted_class)
        return photo.map;
    return "";
  };
  std::string figures;
  bool some = false;
  for (const Photo& photo : last_.photos) some = some || !map_of(photo.mistake).empty();
  for (const Photo& photo : last_.photos) {
    const EpochMistake& m = photo.mistake;
    std::string pair;
    if (!photo.image.empty()) {
      const std::string map = map_of(m);
      pair = photo.image + (!map.empty() ? map : some ? kNoMap : "");
    }
    figures += html::figure(pair, answer_caption(m.label, m.predicted, m.probability, m.path,
                                                 m.path.parent_path().parent_path()));
  }
  const bool same = explained_.epoch == last_.epoch;
  std::string heading = fmt::format("Worst mistakes of epoch {}", last_.epoch);
  if (same && some) heading += ", and the evidence";
  if (!same && some) heading += fmt::format(", and the evidence in epoch {}", explained_.epoch);
  return section(heading, last_.photos.empty() ? "<p>None.</p>" : figures);
}

bool EpochGallery::stopping() const {
  const std::lock_guard lock(mutex_);
  return stop_;
}

bool EpochGallery::explaining_is_due(Clock::time_point now) const {
  return !run_.empty() && now - watched_ < kWatched && now >= next_explanation_ &&
         explained_.epoch != last_.epoch && !last_.photos.empty();
}

void EpochGallery::work() {
  for (;;) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::milliseconds(500),
                      [&] { return stop_ || asked_epoch_ != last_.epoch; });
    if (stop_) return;
    if (asked_epoch_ != last_.epoch) {
      const int epoch = asked_epoch_;
      const std::vector<EpochMistake> worst = asked_;
      lock.unlock();
      Gallery gallery = photos_of(epoch, worst);
      lock.lock();
      last_ = std::move(gallery);
      ++version_;
    } else if (explaining_is_due(Clock::now())) {
      Gallery gallery = last_;
      lock.unlock();
      const auto start = Clock::now();
      const bool done = explain(gallery);
      next_explanation_ = Clock::now() + (kShareOfTime - 1) * (Clock::now() - start);
      if (!done) continue;
      lock.lock();
      explained_ = std::move(gallery);
      ++version_;
    }
  }
}

EpochGallery::Gallery EpochGallery::photos_of(int epoch, const std::vector<EpochMistake>& worst) {
  Gallery out{epoch, {}};
  if (small_.size() > kMostKept) small_.clear();
  for (const EpochMistake& mistake : worst) {
    Photo photo{mistake, "", ""};
    try {
      auto at = small_.find(mistake.path);
      if (at == small_.end()) {
        const Image image = load_image(mistake.path);
        const double scale =
            std::min(1.0, static_cast<double>(kSide) / std::max(image.width, image.height));
        at = small_
                 .emplace(mistake.path,
                          resize(image, std::max(1, static_cast<int>(image.width * scale)),
                                 std::max(1, static_cast<int>(image.height * scale)),
                                 Resampling::bilinear))
                 .first;
      }
      photo.image =
          html::thumbnail(at->second, kSide,
                          answer_in_words(mistake.label, mistake.predicted, mistake.probability));
    } catch (const Error&) {
      photo.image.clear();  // a tile says that there is none
    } catch (const std::bad_alloc&) {
      photo.image.clear();
    }
    out.photos.push_back(std::move(photo));
    if (stopping()) break;
  }
  return out;
}

/// Adds the maps; false where there are none to be had.
bool EpochGallery::explain(Gallery& gallery) {
  try {
    const fs::path file = run_ / run_files::kLast;
    const uint64_t free = available_memory();
    if (free > 0 && fs::file_size(file) * kMemoryOfModel > free) return false;
    const ModelFile model = read_model(file);
    // Another epoch's, where one has ended meanwhile.
    const nlohmann::json& training = model.metadata.training;
    if (training.value("epoch", 0) != gallery.epoch) return false;
    GradCam cam(model, "", 1);
    const Network& net = model.metadata.network;
    for (Photo& photo : gallery.photos) {
      if (stopping()) return false;
      if (photo.image.empty()) continue;
      const Image& small = small_.at(photo.mistake.path);
      const Image map =
          overlay(small, cam.explain(load_image(photo.mistake.path), photo.mistake.predicted_class),
                  model.metadata.preprocessing, net.input_width, net.input_height);
      photo.map = html::thumbnail(
          map, kSide, fmt::format("evidence for {} in this photo", photo.mistake.predicted));
    }
    return true;
  } catch (const std::exception&) {
    return false;  // a file that is being replaced, an image that went away, memory: photos alone
  }
}

}  // namespace graft
