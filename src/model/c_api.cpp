// graft_c.h over Classifier.
#include <algorithm>
#include <cstring>
#include <exception>
#include <functional>
#include <limits>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include "graft/classifier.h"
#include "graft/error.h"
#include "graft/graft_c.h"

struct graft_classifier {
  graft::Classifier classifier;
};

namespace {

using graft::Image;

thread_local std::string last_error;

graft_status refuse(graft_status status, const char* text) noexcept {
  try {
    last_error = text;
  } catch (...) {
    last_error.clear();  // no memory for the text
  }
  return status;
}

graft_status status_of(graft::ErrorKind kind) {
  switch (kind) {
    case graft::ErrorKind::usage:
      return GRAFT_USAGE;
    case graft::ErrorKind::input:
      return GRAFT_INPUT;
    case graft::ErrorKind::io:
      return GRAFT_IO;
    case graft::ErrorKind::memory:
      return GRAFT_MEMORY;
    case graft::ErrorKind::interrupted:
      break;
  }
  return GRAFT_INTERNAL;
}

/// Calls `body`; what it throws becomes a status and the thread's text.
template <typename Body>
graft_status guarded(const Body& body) noexcept {
  try {
    body();
    return GRAFT_OK;
  } catch (const graft::Error& error) {
    return refuse(status_of(error.kind()), error.what());
  } catch (const std::bad_alloc&) {
    return refuse(GRAFT_MEMORY, "out of memory");
  } catch (const std::exception& error) {
    return refuse(GRAFT_INTERNAL, error.what());
  } catch (...) {
    return refuse(GRAFT_INTERNAL, "unknown exception");
  }
}

/// Nothing for a number that is none.
std::optional<graft::Precision> to_precision(int32_t number) {
  switch (number) {
    case GRAFT_FP32:
      return graft::Precision::fp32;
    case GRAFT_BF16:
      return graft::Precision::bf16;
    case GRAFT_AUTO:
      return graft::Precision::automatic;
    default:
      return std::nullopt;
  }
}

Image to_image(const graft_pixels& pixels, size_t index) {
  const std::string name = "image " + std::to_string(index);
  if (pixels.data == nullptr || pixels.width < 1 || pixels.height < 1)
    throw graft::Error(graft::ErrorKind::usage,
                       name + ": expected pixels with a width and a height of at least 1");
  const size_t row = size_t{3} * static_cast<size_t>(pixels.width);
  const size_t step = pixels.row_bytes == 0 ? row : pixels.row_bytes;
  if (step < row)
    throw graft::Error(graft::ErrorKind::usage, name + ": row_bytes is " + std::to_string(step) +
                                                    "; expected at least 3 × width, or 0");
  if (step > std::numeric_limits<ptrdiff_t>::max() / static_cast<size_t>(pixels.height))
    throw graft::Error(graft::ErrorKind::usage,
                       name + ": row_bytes times height is no size of memory");
  if (static_cast<int64_t>(pixels.width) * pixels.height > graft::DecodeLimits{}.max_pixels)
    throw graft::Error(graft::ErrorKind::input, name + ": has more than 100 million pixels");
  Image image{pixels.width, pixels.height, {}};
  image.pixels.resize(row * static_cast<size_t>(pixels.height));
  for (size_t y = 0; y < static_cast<size_t>(pixels.height); ++y)
    std::memcpy(&image.pixels[y * row], pixels.data + y * step, row);
  return image;
}

void classify(const graft::Classifier& classifier, size_t count,
              const std::function<Image(size_t)>& read, float* probabilities,
              graft_status* statuses) {
  const size_t classes = classifier.classes().size();
  const auto batch = static_cast<size_t>(classifier.max_batch());
  for (size_t begin = 0; begin < count; begin += batch) {
    std::vector<Image> images;
    std::vector<size_t> indices;
    for (size_t i = begin; i < std::min(count, begin + batch); ++i) {
      const auto read_one = [&] { images.push_back(read(i)); };
      if (statuses == nullptr) {
        read_one();
      } else {
        std::fill_n(probabilities + i * classes, classes, 0.0F);
        const std::string before = last_error;
        statuses[i] = guarded(read_one);
        if (statuses[i] != GRAFT_OK && !before.empty()) last_error = before;  // the first one's
        if (statuses[i] != GRAFT_OK) continue;
      }
      indices.push_back(i);
    }
    const std::vector<graft::Prediction> predictions = classifier.classify(images);
    for (size_t k = 0; k < indices.size(); ++k)
      std::copy(predictions[k].probabilities.begin(), predictions[k].probabilities.end(),
                probabilities + indices[k] * classes);
  }
}

/// Refuses null pointers where there is something to point at.
graft_status check(const graft_classifier* classifier, const void* images, size_t count,
                   const void* probabilities) {
  last_error.clear();
  if (classifier == nullptr) return refuse(GRAFT_USAGE, "classifier is NULL");
  if (count > 0 && images == nullptr) return refuse(GRAFT_USAGE, "images are NULL");
  if (count > 0 && probabilities == nullptr) return refuse(GRAFT_USAGE, "probabilities are NULL");
  const size_t classes = classifier->classifier.classes().size();
  if (count > std::numeric_limits<ptrdiff_t>::max() / (sizeof(float) * classes))
    return refuse(GRAFT_USAGE, "count is more than memory holds");
  return GRAFT_OK;
}

}  // namespace

extern "C" {

const char* graft_version(void) { return GRAFT_VERSION; }

graft_status graft_load(const char* path, const graft_options* options,
                        graft_classifier** classifier) {
  last_error.clear();
  if (classifier == nullptr) return refuse(GRAFT_USAGE, "classifier is NULL");
  *classifier = nullptr;
  if (path == nullptr) return refuse(GRAFT_USAGE, "path is NULL");
  graft_options given = GRAFT_OPTIONS_INIT;
  if (options != nullptr) {
    // A program of another version has fewer or more members behind the same first ones.
    if (options->size < sizeof(size_t))
      return refuse(GRAFT_USAGE, "options: set size, as GRAFT_OPTIONS_INIT does");
    // Members that this version does not know must be what leaves them out.
    constexpr size_t kMaxSize = 4096;
    const auto* bytes = reinterpret_cast<const unsigned char*>(options);
    const size_t size = std::min(options->size, kMaxSize);
    if (options->size > kMaxSize || std::any_of(bytes + std::min(sizeof given, size), bytes + size,
                                                [](unsigned char byte) { return byte != 0; }))
      return refuse(GRAFT_USAGE, "options: set members that this version of Graft does not know");
    std::memcpy(&given, options, std::min(options->size, sizeof given));
  }
  const std::optional<graft::Precision> precision = to_precision(given.precision);
  if (!precision)
    return refuse(GRAFT_USAGE, "options: precision must be GRAFT_FP32, GRAFT_BF16 or GRAFT_AUTO");
  if (given.threads < 0 || given.max_batch < 0 || given.sessions < 0)
    return refuse(GRAFT_USAGE, "options: threads, max_batch and sessions must be 0 or more");
  return guarded([&] {
    graft::ClassifierOptions as_cpp;
    as_cpp.threads = given.threads;
    if (given.max_batch > 0) as_cpp.max_batch = given.max_batch;
    as_cpp.sessions = given.sessions;
    as_cpp.low_latency = given.low_latency != 0;
    as_cpp.views = given.views;
    as_cpp.precision = *precision;
    *classifier = new graft_classifier{graft::Classifier::load(path, as_cpp)};
  });
}

void graft_free(graft_classifier* classifier) { delete classifier; }

graft_precision graft_classifier_precision(const graft_classifier* classifier) {
  return classifier != nullptr && classifier->classifier.precision() == graft::Precision::bf16
             ? GRAFT_BF16
             : GRAFT_FP32;
}

size_t graft_class_count(const graft_classifier* classifier) {
  return classifier == nullptr ? 0 : classifier->classifier.classes().size();
}

const char* graft_class_name(const graft_classifier* classifier, size_t index) {
  if (index >= graft_class_count(classifier)) return nullptr;
  return classifier->classifier.classes()[index].c_str();
}

graft_status graft_classify_pixels(const graft_classifier* classifier, const graft_pixels* images,
                                   size_t count, float* probabilities, graft_status* statuses) {
  if (const graft_status status = check(classifier, images, count, probabilities);
      status != GRAFT_OK)
    return status;
  return guarded([&] {
    classify(
        classifier->classifier, count, [&](size_t i) { return to_image(images[i], i); },
        probabilities, statuses);
  });
}

graft_status graft_classify_bytes(const graft_classifier* classifier, const void* const* files,
                                  const size_t* sizes, size_t count, float* probabilities,
                                  graft_status* statuses) {
  if (const graft_status status = check(classifier, files, count, probabilities);
      status != GRAFT_OK)
    return status;
  if (count > 0 && sizes == nullptr) return refuse(GRAFT_USAGE, "sizes are NULL");
  return guarded([&] {
    classify(
        classifier->classifier, count,
        [&](size_t i) {
          const std::string name = "image " + std::to_string(i);
          if (files[i] == nullptr)
            throw graft::Error(graft::ErrorKind::usage, name + ": its bytes are NULL");
          return graft::decode_image({static_cast<const std::byte*>(files[i]), sizes[i]}, name);
        },
        probabilities, statuses);
  });
}

graft_status graft_classify_files(const graft_classifier* classifier, const char* const* paths,
                                  size_t count, float* probabilities, graft_status* statuses) {
  if (const graft_status status = check(classifier, paths, count, probabilities);
      status != GRAFT_OK)
    return status;
  return guarded([&] {
    classify(
        classifier->classifier, count,
        [&](size_t i) {
          if (paths[i] == nullptr)
            throw graft::Error(graft::ErrorKind::usage,
                               "image " + std::to_string(i) + ": its path is NULL");
          return graft::load_image(paths[i]);
        },
        probabilities, statuses);
  });
}

const char* graft_last_error(void) { return last_error.c_str(); }

}  // extern "C"
