// The models that a server has, by name, replaced while it runs.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/descriptor.h"
#include "graft/classifier.h"
#include "graft/features.h"
#include "model/gradcam.h"

namespace graft::serving {

/// One model as it was loaded. What is thread-safe in a Classifier is so here; the rest says so.
class ServedModel {
 public:
  ServedModel(std::string name, const std::filesystem::path& file,
              const ClassifierOptions& options);

  [[nodiscard]] const std::string& name() const { return name_; }
  /// The hash of the file's content.
  [[nodiscard]] const std::string& version() const { return version_; }
  [[nodiscard]] const std::string& loaded() const { return loaded_; }  ///< UTC, ISO 8601
  [[nodiscard]] const Classifier& classifier() const { return classifier_; }
  [[nodiscard]] const ModelInfo& info() const { return classifier_.info(); }
  [[nodiscard]] const std::vector<std::pair<std::string, std::string>>& card() const {
    return card_;
  }
  /// The layer whose outputs features() gives: the backbone's last.
  [[nodiscard]] std::string feature_layer() const;

  /// Where in an image the evidence for its label lies, drawn over `shown`, as a PNG; one call at a
  /// time. `fitted`: the image at input size (fit_image). Loads its engines at the first call.
  std::vector<std::byte> explain(const Image& fitted, const Image& shown);
  /// An image's features: the outputs of feature_layer(), or their means over the map. One call at
  /// a time. Loads its engine at the first call.
  std::vector<float> features(const Image& image, Pooling pooling, std::vector<int64_t>& shape);

 private:
  std::string name_;
  std::string version_;         // set when the content is read
  Descriptor content_;          // the file's bytes as they were when it was loaded
  std::filesystem::path file_;  // the same by its name in /proc
  ClassifierOptions options_;
  std::string loaded_;
  Classifier classifier_;
  std::vector<std::pair<std::string, std::string>> card_;
  std::mutex explaining_;
  std::optional<GradCam> cam_;
  std::mutex extracting_;
  std::map<Pooling, FeatureExtractor> extractors_;
};

using ModelPtr = std::shared_ptr<ServedModel>;

/// Thread-safe.
class ModelStore {
 public:
  /// Tells what happened to a model: an event's name, the model's, and a text.
  using Tell = std::function<void(std::string_view event, const std::string& model,
                                  const std::string& text)>;

  /// `paths`: model files, run folders, or folders of them, each under its name (that of the run
  /// folder, or of the file without its end; NAME=PATH names it otherwise). Loads all. Throws
  /// Error(input) for what holds no model, Error(usage) for two of one name.
  ModelStore(const std::vector<std::string>& paths, ClassifierOptions options, Tell tell);

  /// The first where `name` is empty; null: there is none of that name.
  [[nodiscard]] ModelPtr find(const std::string& name) const;
  [[nodiscard]] std::vector<ModelPtr> all() const;

  /// Loads anew what was replaced on disk, and what has come into a folder of models. A file that
  /// cannot be loaded leaves the model as it was. Called by one thread, once a second or so.
  void refresh();

 private:
  /// What tells that a file is another one.
  struct Stamp {
    uint64_t size = 0;
    int64_t modified = 0;  // nanoseconds
    uint64_t inode = 0;
    bool operator==(const Stamp&) const = default;
  };
  struct Entry {
    std::string name;
    std::filesystem::path file;
    Stamp stamp;
    ModelPtr model;
  };
  struct Found {
    std::string name;
    std::filesystem::path file;
  };
  static std::optional<Stamp> stamp_of(const std::filesystem::path& file);
  [[nodiscard]] std::vector<Found> look() const;

  std::vector<std::string> paths_;
  ClassifierOptions options_;
  Tell tell_;
  mutable std::mutex mutex_;  // guards what follows
  std::vector<Entry> entries_;
  std::map<std::filesystem::path, Stamp> refused_;  // of the refreshing thread
};

}  // namespace graft::serving
