// Grad-CAM of a model that is in memory already; see graft/explain.h.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "graft/explain.h"
#include "graft/image.h"
#include "model/model_file.h"

namespace graft {

class GradCam {
 public:
  /// `layer`: a convolution, or a BatchNorm or pooling of maps; empty: the last convolution with
  /// what normalises it. Throws Error(usage) for a name that is none of them. `views`: whose logits
  /// are averaged, as ClassifierOptions::views; the map is of the image itself.
  /// `precision`: of the way up to the explained layer.
  GradCam(const ModelFile& model, const std::string& layer, int threads, int views = 0,
          Precision precision = Precision::fp32);
  ~GradCam();
  GradCam(GradCam&&) noexcept;
  GradCam& operator=(GradCam&&) noexcept;

  /// About what it will take, beside images.
  [[nodiscard]] uint64_t estimate() const;
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

/// The map over the image in colours from blue (none) to red (most), as the network sees it:
/// stretched over the whole image, or over the centre that preprocessing cuts out.
Image overlay(const Image& image, const ActivationMap& map, const Preprocessing& preprocessing,
              int width, int height);

}  // namespace graft
