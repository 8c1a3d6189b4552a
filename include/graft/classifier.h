// A trained classifier: load one file, classify images. No training library is involved.
//
//   const graft::Classifier classifier = graft::Classifier::load("runs/scenes");
//   const graft::Prediction p = classifier.classify(graft::load_image("beach.jpg"));
//   std::cout << classifier.classes()[p.best()] << ' ' << p.probabilities[p.best()] << '\n';
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "graft/context.h"
#include "graft/device.h"
#include "graft/image.h"
#include "graft/network.h"
#include "graft/precision.h"

#pragma GCC visibility push(default)
namespace graft {

struct ClassifierOptions {
  int threads =
      0;  ///< that compute at once, in all; 0: all that the process may use; ≤ kMaxThreads
  int max_batch = 16;  ///< images computed at once, at most; more are cut into such batches
  /// Batches that may run beside each other, each on its share of the threads; 0: one for each 8
  /// threads. Weights are shared; each takes buffers of its own (see Classifier::memory).
  int sessions = 0;
  /// An image that is classified alone takes a plan of its own, made for the least time, with other
  /// rounding than it gets among others. False: an image's result depends neither on other images
  /// nor on their number, to the bit.
  bool low_latency = false;
  /// Views of each image, 1 or 2: its mirror image too, logits averaged; 0: as the model says.
  int views = 0;
  /// That convolutions are computed with, whatever the model was trained with: models run on every
  /// processor. Error(usage) for bf16 on one without it.
  Precision precision = Precision::fp32;
  /// That computes; null: the processor. A device takes as many images at once as it needs, and
  /// of sessions at least two.
  std::shared_ptr<const ComputeDevice> device = nullptr;
};

/// One image's result.
struct Prediction {
  std::vector<float> logits;
  std::vector<float> probabilities;  ///< softmax of the logits; sums to 1
  std::vector<int> ranking;          ///< classes, most probable first; ties by index

  /// The most probable class.
  [[nodiscard]] size_t best() const { return static_cast<size_t>(ranking.at(0)); }
};

/// What a model file says of itself.
struct ModelInfo {
  Network network;
  std::vector<std::string> classes;
  Preprocessing preprocessing;
  std::string weights_source;  ///< what the backbone began as: "Keras VGG19 ImageNet (no top)", …
  std::string weights_md5;     ///< of that file; empty for random weights
  std::string weights_licence;  ///< licence family of those weights
  std::string training;         ///< the training run's summary, a JSON object
  std::string fine_tune;        ///< what was trained of the backbone: see freeze_plan()
  int test_views = 1;           ///< of each image, as ClassifierOptions::views
};

/// MODEL of the command line: the model file of a run folder, or the file itself.
std::filesystem::path model_file(const std::filesystem::path& model);

/// Reads and checks a model file whole, or a run folder's model.safetensors. Throws Error(input)
/// that names the file.
ModelInfo read_model_info(const std::filesystem::path& path);

/// Bytes that a classifier takes.
struct ClassifierMemory {
  uint64_t weights = 0;  ///< packed; the same for one session and for many
  uint64_t buffers = 0;  ///< activations and scratch of all sessions
};

/// An object that was moved from may only be assigned to or destroyed. A process that forks without
/// exec loads anew in the child: threads do not come along.
class Classifier {
 public:
  /// Loads a model file, or a run folder's model.safetensors. Every field is checked. Throws
  /// Error(input) that names the file.
  static Classifier load(const std::filesystem::path& path, const ClassifierOptions& options = {});
  ~Classifier();
  Classifier(Classifier&&) noexcept;
  Classifier& operator=(Classifier&&) noexcept;

  [[nodiscard]] const ModelInfo& info() const;
  [[nodiscard]] const std::vector<std::string>& classes() const { return info().classes; }

  /// Thread-safe: calls from several threads run beside each other or are computed together as one
  /// batch; none starts a thread. Throws Error(input) where the network's answer is not finite.
  [[nodiscard]] Prediction classify(const Image& image) const;
  /// One prediction for each image, in their order.
  [[nodiscard]] std::vector<Prediction> classify(std::span<const Image> images) const;

  /// Floats of one image as the network reads it: (3, H, W), in the ranges of its preprocessing.
  [[nodiscard]] size_t input_elements() const;
  /// Of each image: those asked for, else the model's own.
  [[nodiscard]] int views() const;
  /// That it computes with: fp32 or bf16.
  [[nodiscard]] Precision precision() const;
  /// Images that are computed at once at most.
  [[nodiscard]] int max_batch() const;
  /// Calls of run() with whole batches that are worth making at once, from as many threads: on a
  /// device one is computed while the next is on its way there.
  [[nodiscard]] int lanes() const;
  /// For callers that fit and convert images themselves (fit_image, to_input). `inputs`: count ×
  /// (3, H, W); `logits`: count × classes, averaged over the views. Thread-safe. Logits are not
  /// checked.
  void run(std::span<const float> inputs, int count, std::span<float> logits) const;

  /// About what batches of `images` will take, weights included; builds nothing.
  [[nodiscard]] uint64_t estimate(int images) const;
  /// What batches of `images` take. Builds what is not built yet, so that the first classify() does
  /// not have to.
  ClassifierMemory prepare(int images) const;

 private:
  struct State;
  explicit Classifier(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// Classifies image files: decodes ahead, computes batches. Calls `on_prediction(i, prediction)`
/// for each path, or `on_error(i, message)` for one that cannot be read, in their order, from the
/// calling thread. Batches are made smaller where memory is short. Throws Error(memory), before
/// anything is computed, where one image does not fit; Error(interrupted) where the context says
/// stop. The context's threads are for decoding.
void classify_files(const Classifier& classifier, std::span<const std::filesystem::path> paths,
                    const std::function<void(size_t, const Prediction&)>& on_prediction,
                    const std::function<void(size_t, const std::string&)>& on_error,
                    const RunContext& context = {});

/// The same for results that show the images: `on_prediction` also gets each image made so small
/// that no side is longer than `side` pixels.
void classify_files(
    const Classifier& classifier, std::span<const std::filesystem::path> paths, int side,
    const std::function<void(size_t, const Prediction&, const Image&)>& on_prediction,
    const std::function<void(size_t, const std::string&)>& on_error,
    const RunContext& context = {});

/// Softmax and ranking of one row of logits. Throws Error(input) where one is NaN or infinite.
Prediction to_prediction(std::span<const float> logits);

}  // namespace graft
#pragma GCC visibility pop
