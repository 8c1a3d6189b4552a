// A trained classifier: load one file, classify pictures. No training library is involved.
//
//   const graft::Classifier classifier = graft::Classifier::load("runs/scenes");
//   const graft::Prediction p = classifier.classify(graft::load_image("beach.jpg"));
//   fmt::print("{} {:.2f}\n", classifier.classes()[p.ranking[0]], p.probabilities[p.ranking[0]]);
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "graft/image.h"
#include "graft/network.h"

namespace graft {

struct ClassifierOptions {
  int threads = 0;  ///< 0: all processors that the process may use
};

/// One picture's result.
struct Prediction {
  std::vector<float> logits;
  std::vector<float> probabilities;  ///< softmax of the logits; sums to 1
  std::vector<int> ranking;          ///< classes, most probable first; ties by index
};

class Engine;
struct ModelMetadata;

class Classifier {
 public:
  /// Loads a model file, or a run folder's model.safetensors. Every field is checked. Throws
  /// Error(input) that names the file.
  static Classifier load(const std::filesystem::path& path, const ClassifierOptions& options = {});
  ~Classifier();
  Classifier(Classifier&&) noexcept;
  Classifier& operator=(Classifier&&) noexcept;

  [[nodiscard]] const std::vector<std::string>& classes() const;
  [[nodiscard]] const Network& network() const;
  [[nodiscard]] const Preprocessing& preprocessing() const;
  [[nodiscard]] const ModelMetadata& metadata() const;
  /// The executor, for pipelines that feed it themselves.
  [[nodiscard]] Engine& engine() const;

  /// Thread-safe; concurrent calls queue up. Throws Error(input) where the network's answer is not
  /// finite.
  [[nodiscard]] Prediction classify(const Image& image) const;

 private:
  struct State;
  explicit Classifier(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// Softmax and ranking of one row of logits. Throws Error(input) where one is NaN or infinite.
Prediction to_prediction(std::span<const float> logits);

}  // namespace graft
