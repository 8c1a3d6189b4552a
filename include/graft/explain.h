// Grad-CAM: where in an image the evidence for a class lies (Selvaraju et al., "Grad-CAM: visual
// explanations from deep networks via gradient-based localization", 2017).
//
//   graft::Explainer explainer = graft::Explainer::load("runs/scenes");
//   const graft::ActivationMap map = explainer.explain(image);
//   graft::encode_png(explainer.overlay(image, map));
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "graft/classifier.h"
#include "graft/context.h"
#include "graft/image.h"

#pragma GCC visibility push(default)
namespace graft {

/// Evidence for one class, of the explained layer's size, row by row; the largest value is 1, or
/// all are 0 where nothing speaks for the class.
struct ActivationMap {
  int width = 0;
  int height = 0;
  std::vector<float> values;
  /// Of the image: to the bit those that a Classifier of the same precision gives; with bf16 only
  /// where no convolution lies above the explained layer, else as near as bf16 is to fp32.
  std::vector<float> logits;
  size_t output = 0;  ///< the class explained
};

/// Not thread-safe: one for each thread.
class Explainer {
 public:
  /// `model`: a model file, or a run folder. `layer`: a convolution, or a BatchNorm or pooling of
  /// maps; empty: the last convolution with what normalises it. Throws Error(usage) for a name that
  /// is none of them, Error(input) for a file that is no model. `views`: of an image, whose logits
  /// are averaged, as ClassifierOptions::views; maps are of the image itself. `precision`: of the
  /// convolutions up to the explained layer; those above it, and the gradient, are computed in
  /// float32. Error(usage) for bf16 on a processor without it.
  static Explainer load(const std::filesystem::path& model, const std::string& layer = {},
                        const RunContext& context = {}, int views = 0,
                        Precision precision = Precision::fp32);
  ~Explainer();
  Explainer(Explainer&&) noexcept;
  Explainer& operator=(Explainer&&) noexcept;

  [[nodiscard]] const ModelInfo& info() const;
  /// The layer explained.
  [[nodiscard]] const std::string& layer() const;
  /// `output`: the class; none: the most probable one.
  [[nodiscard]] ActivationMap explain(const Image& image, std::optional<size_t> output = {});
  /// The map over the image in colours from blue (none) to red (most), as the network sees it:
  /// stretched over the whole image, or over the centre that preprocessing cuts out.
  [[nodiscard]] Image overlay(const Image& image, const ActivationMap& map) const;
  /// The image, its overlay beside it, and below them the class and its probability; no larger than
  /// a screen. A class whose name needs other letters than Latin ones stands there by its number.
  [[nodiscard]] Image sheet(const Image& image, const ActivationMap& map) const;

 private:
  friend void explain_files(
      Explainer& explainer, std::span<const std::filesystem::path> paths,
      const std::function<void(size_t, const ActivationMap&, const Image&)>& on_map,
      const std::function<void(size_t, const std::string&)>& on_error, const RunContext& context);
  struct State;
  explicit Explainer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// What the sheets that `graft predict --explain` draws say they were written by: see is_png_of().
/// Folders of such sheets are no classes.
inline constexpr const char* kMapSoftware = "graft predict --explain";
/// And the list beside them.
inline constexpr const char* kMapListName = "index.csv";

/// Explains the most probable class of each image, decoded once, ahead. Calls `on_map(i, map,
/// image)` with the decoded image, or `on_error(i, message)` for one that cannot be read, in the
/// order of the paths, from the calling thread. Throws Error(memory), before any work, where one
/// image does not fit; Error(interrupted) where the context says stop.
void explain_files(Explainer& explainer, std::span<const std::filesystem::path> paths,
                   const std::function<void(size_t, const ActivationMap&, const Image&)>& on_map,
                   const std::function<void(size_t, const std::string&)>& on_error,
                   const RunContext& context = {});

}  // namespace graft
#pragma GCC visibility pop
