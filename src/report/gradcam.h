// Grad-CAM: where in a picture the evidence for a class lies (Selvaraju et al., "Grad-CAM: visual
// explanations from deep networks via gradient-based localization", 2017).
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "graft/image.h"
#include "model/model_file.h"

namespace graft {

/// Evidence for one class, of the target layer's size, row by row; the largest value is 1, or all
/// are 0 where nothing speaks for the class.
struct ActivationMap {
  int width = 0;
  int height = 0;
  std::vector<float> values;
  std::vector<float> logits;  ///< of the picture
  size_t output = 0;          ///< the class explained
};

class GradCam {
 public:
  /// `layer`: a convolution, or a BatchNorm or pooling of maps; empty: the last convolution with
  /// what normalises it. Throws Error(usage) for a name that is none of them.
  GradCam(const ModelFile& model, const std::string& layer, int threads);
  ~GradCam();
  GradCam(GradCam&&) noexcept;
  GradCam& operator=(GradCam&&) noexcept;

  /// The layer explained.
  [[nodiscard]] const std::string& layer() const;
  /// `output`: the class; none: the most probable one. Not thread-safe.
  [[nodiscard]] ActivationMap explain(const Image& image, std::optional<size_t> output = {});
  /// The same of an image that has the input's size already.
  [[nodiscard]] ActivationMap explain_fitted(const Image& image, std::optional<size_t> output = {});

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// The map over the picture in colours from blue (none) to red (most), as the network sees it:
/// stretched over the whole picture, or over the centre that preprocessing cuts out.
Image overlay(const Image& image, const ActivationMap& map, const Preprocessing& preprocessing,
              int width, int height);

}  // namespace graft
