#include "model/gradcam.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "base/fail.h"
#include "base/threads.h"
#include "base/words.h"
#include "engine/engine.h"
#include "engine/gradient.h"
#include "engine/team.h"
#include "model/logits.h"

namespace graft {
namespace {

constexpr float kOpacity = 0.55F;

/// Layers whose output is maps that a gradient can weigh.
bool is_target(const Layer& layer) {
  return layer.kind == LayerKind::conv || layer.kind == LayerKind::batchnorm ||
         layer.kind == LayerKind::maxpool;
}

size_t find_target(const Network& network, const std::string& name) {
  const std::vector<Shape> shapes = output_shapes(network);
  if (name.empty()) {
    size_t last = 0;
    for (size_t i = 1; i < network.layers.size(); ++i)
      if (network.layers[i].kind == LayerKind::conv ||
          (network.layers[i].kind == LayerKind::batchnorm && i == last + 1 && last > 0))
        last = i;
    return last;
  }
  const std::optional<size_t> at = find_layer(network, name);
  if (at && is_target(network.layers[*at]) && !shapes[*at].flat) return *at;
  std::vector<std::string> names;
  for (size_t i = 0; i < network.layers.size(); ++i)
    if (network.layers[i].kind == LayerKind::conv) names.push_back(network.layers[i].name);
  fail(ErrorKind::usage, "`explain-layer`: '{}' is no layer with maps{}; the convolutions are {}",
       clipped(name), did_you_mean(name, names), fmt::join(names, ", "));
}

/// Blue, cyan, green, yellow, red: the order of the spectrum, as such maps are usually read.
std::array<float, 3> colour(float value) {
  const auto ramp = [&](float centre) {
    return std::clamp(1.5F - std::abs(4 * value - centre), 0.0F, 1.0F) * 255;
  };
  return {ramp(3), ramp(2), ramp(1)};
}

float sample(const ActivationMap& map, float x, float y) {
  const auto clamp = [](float v, int size) {
    return std::clamp(v, 0.0F, static_cast<float>(size - 1));
  };
  x = clamp(x, map.width);
  y = clamp(y, map.height);
  const int x0 = static_cast<int>(x);
  const int y0 = static_cast<int>(y);
  const int x1 = std::min(x0 + 1, map.width - 1);
  const int y1 = std::min(y0 + 1, map.height - 1);
  const float fx = x - static_cast<float>(x0);
  const float fy = y - static_cast<float>(y0);
  const auto at = [&](int column, int row) {
    return map.values[static_cast<size_t>(row) * map.width + column];
  };
  return (at(x0, y0) * (1 - fx) + at(x1, y0) * fx) * (1 - fy) +
         (at(x0, y1) * (1 - fx) + at(x1, y1) * fx) * fy;
}

}  // namespace

struct GradCam::State {
  ModelMetadata metadata;
  int views;
  size_t target;
  Shape shape;
  engine::Engine below;
  engine::InputGradient above;
};

GradCam::GradCam(const ModelFile& model, const std::string& layer, int threads, int views,
                 Precision precision) {
  const Network& network = model.metadata.network;
  const size_t target = find_target(network, layer);
  engine::EngineOptions options;
  options.max_batch = 1;
  options.precision = precision;  // of `below`; gradients are float32
  options.team = std::make_shared<engine::Team>(threads > 0 ? threads : available_processors());
  state_ = std::unique_ptr<State>(
      new State{model.metadata, views > 0 ? views : model.metadata.test_views, target,
                output_shapes(network)[target],
                engine::Engine(network, 0, target + 1, model.tensors, options),
                engine::InputGradient(network, target, model.tensors, options)});
}

GradCam::~GradCam() = default;
GradCam::GradCam(GradCam&&) noexcept = default;
GradCam& GradCam::operator=(GradCam&&) noexcept = default;

uint64_t GradCam::estimate() const {
  const Network& network = state_->metadata.network;
  uint64_t bytes = state_->below.estimate(1);
  for (const TensorSpec& spec : tensor_specs(network, state_->target + 1, network.layers.size()))
    bytes += sizeof(float) * static_cast<uint64_t>(spec.elements());
  return bytes;
}

const std::string& GradCam::layer() const {
  return state_->metadata.network.layers[state_->target].name;
}

ActivationMap GradCam::explain(const Image& image, std::optional<size_t> output) {
  const ModelMetadata& model = state_->metadata;
  return explain_fitted(
      fit_image(image, model.network.input_width, model.network.input_height, model.preprocessing),
      output);
}

ActivationMap GradCam::explain_fitted(const Image& image, std::optional<size_t> output) {
  State& s = *state_;
  std::vector<float> input(static_cast<size_t>(s.below.input_elements()));
  to_input(image, s.metadata.preprocessing, input.data());
  std::vector<float> activations(static_cast<size_t>(s.shape.elements()));
  std::vector<float> of_mirrored;
  if (s.views > 1) {
    std::vector<float> mirrored(input.size());
    mirror_input(input, s.metadata.network.input_width, mirrored.data());
    s.below.run(mirrored.data(), 1, activations.data());
    of_mirrored = s.above.forward(activations);
  }
  s.below.run(input.data(), 1, activations.data());
  ActivationMap map;
  map.width = static_cast<int>(s.shape.width);
  map.height = static_cast<int>(s.shape.height);
  map.logits = s.above.forward(activations);
  if (s.views > 1) average_views(map.logits, of_mirrored);
  map.output = output.value_or(static_cast<size_t>(
      std::max_element(map.logits.begin(), map.logits.end()) - map.logits.begin()));
  if (map.output >= map.logits.size())
    fail(ErrorKind::usage, "class {} of {}: there is none of that number", map.output,
         map.logits.size());
  const std::vector<float> gradient = s.above.backward(map.output);
  const auto pixels = static_cast<size_t>(map.width) * map.height;
  std::vector<double> sums(pixels, 0);
  for (size_t c = 0; c < static_cast<size_t>(s.shape.channels); ++c) {
    double weight = 0;
    for (size_t i = 0; i < pixels; ++i) weight += gradient[c * pixels + i];
    weight /= static_cast<double>(pixels);
    for (size_t i = 0; i < pixels; ++i) sums[i] += weight * activations[c * pixels + i];
  }
  const double most = *std::max_element(sums.begin(), sums.end());
  for (const double sum : sums)
    map.values.push_back(most > 0 ? static_cast<float>(std::max(sum, 0.0) / most) : 0);
  return map;
}

Image overlay(const Image& image, const ActivationMap& map, const Preprocessing& preprocessing,
              int width, int height) {
  check_image(image);
  if (map.width < 1 || map.height < 1 ||
      map.values.size() != static_cast<size_t>(map.width) * static_cast<size_t>(map.height))
    fail(ErrorKind::usage, "a map of {}x{} with {} values", map.width, map.height,
         map.values.size());
  // A cropped image is shown as the network sees it, at the size of its input.
  Image out = preprocessing.crop_ratio > 0 ? fit_image(image, width, height, preprocessing) : image;
  for (int y = 0; y < out.height; ++y)
    for (int x = 0; x < out.width; ++x) {
      const float value = sample(map, (static_cast<float>(x) + 0.5F) * map.width / out.width - 0.5F,
                                 (static_cast<float>(y) + 0.5F) * map.height / out.height - 0.5F);
      const std::array<float, 3> over = colour(value);
      uint8_t* pixel = &out.pixels[(static_cast<size_t>(y) * out.width + x) * 3];
      for (size_t c = 0; c < 3; ++c)
        pixel[c] =
            static_cast<uint8_t>(std::lround(pixel[c] * (1 - kOpacity) + over.at(c) * kOpacity));
    }
  return out;
}

}  // namespace graft
