#include <algorithm>
#include <utility>

#include "base/fail.h"
#include "features/image_stream.h"
#include "graft/explain.h"
#include "image/sheet.h"
#include "model/gradcam.h"
#include "model/model_file.h"

namespace graft {

struct Explainer::State {
  ModelInfo info;
  GradCam cam;
};

Explainer::Explainer(std::unique_ptr<State> state) : state_(std::move(state)) {}
Explainer::~Explainer() = default;
Explainer::Explainer(Explainer&&) noexcept = default;
Explainer& Explainer::operator=(Explainer&&) noexcept = default;

Explainer Explainer::load(const std::filesystem::path& model, const std::string& layer,
                          const RunContext& context, int views, Precision precision) {
  if (views < 0 || views > kMostTestViews)
    fail(ErrorKind::usage, "views are {}; expected 0 to {}", views, kMostTestViews);
  precision = resolve_precision(precision);
  const ModelFile file = read_model(model_file(model));
  return Explainer(std::unique_ptr<State>(new State{
      to_info(file.metadata), GradCam(file, layer, context.thread_count(), views, precision)}));
}

const ModelInfo& Explainer::info() const { return state_->info; }
const std::string& Explainer::layer() const { return state_->cam.layer(); }

ActivationMap Explainer::explain(const Image& image, std::optional<size_t> output) {
  return state_->cam.explain(image, output);
}

Image Explainer::overlay(const Image& image, const ActivationMap& map) const {
  const Network& network = state_->info.network;
  return graft::overlay(image, map, state_->info.preprocessing, network.input_width,
                        network.input_height);
}

Image Explainer::sheet(const Image& image, const ActivationMap& map) const {
  constexpr int kLeastSide = 224;  // pixels; less is a stamp
  constexpr int kMostSide = 1024;
  const Image shown = fit_between(image, kLeastSide, kMostSide);
  const Image over = overlay(shown, map);
  const Prediction prediction = to_prediction(map.logits);
  const std::vector<std::string>& classes = info().classes;
  if (map.output >= classes.size() || prediction.probabilities.size() != classes.size())
    fail(ErrorKind::usage, "a map of output {} of {}, for a model of {} classes", map.output,
         prediction.probabilities.size(), classes.size());
  std::string label = drawable(classes[map.output]);
  if (label.empty()) label = fmt::format("class {}", map.output);
  // Where the network sees a part alone, that has another height.
  const Image original = shown.height == over.height
                             ? shown
                             : resize(shown, std::max(1, shown.width * over.height / shown.height),
                                      over.height, Resampling::bilinear);
  return captioned(side_by_side(original, over),
                   fmt::format("{} {:.1f} %", label, 100 * prediction.probabilities[map.output]));
}

void explain_files(Explainer& explainer, std::span<const std::filesystem::path> paths,
                   const std::function<void(size_t, const ActivationMap&, const Image&)>& on_map,
                   const std::function<void(size_t, const std::string&)>& on_error,
                   const RunContext& context) {
  require_callbacks(on_map && on_error);
  const ModelInfo& info = explainer.info();
  GradCam& cam = explainer.state_->cam;
  const ImageJob job{.paths = paths,
                     .height = info.network.input_height,
                     .width = info.network.input_width,
                     .preprocessing = info.preprocessing,
                     .batch = context.thread_count(),  // decoded at once; sources may be large
                     .label = "classifying",
                     .context = context,
                     .keeps_source = true};
  // The way to the map computes the answer too; the maps of all layers above it are kept.
  Forward memory;
  memory.inputs =
      static_cast<size_t>(3) * static_cast<size_t>(job.height) * static_cast<size_t>(job.width);
  memory.outputs = info.classes.size();
  memory.estimate = [&](int) { return cam.estimate(); };
  require_memory(job, memory, 2);
  stream_images(
      job,
      [&](const StreamedImage& image) {
        on_map(image.index, cam.explain_fitted(image.image), image.source);
      },
      on_error);
}

}  // namespace graft
