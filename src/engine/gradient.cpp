#include "engine/gradient.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <utility>

#include "engine/engine.h"
#include "engine/fold.h"

namespace graft::engine {
namespace {

using Values = std::vector<float>;

/// A convolution's way back is a convolution: out and in change places, kernels are flipped both
/// ways. (Of usual windows: the only ones that validate() lets through.)
Tensor flipped(const Tensor& weight) {
  const int64_t outputs = weight.shape()[0];
  const int64_t inputs = weight.shape()[1];
  Values values(weight.values().size());
  for (int64_t o = 0; o < outputs; ++o)
    for (int64_t i = 0; i < inputs; ++i)
      for (int64_t k = 0; k < 9; ++k)
        values[(i * outputs + o) * 9 + 8 - k] = weight.data()[(o * inputs + i) * 9 + k];
  return {{inputs, outputs, 3, 3}, std::move(values)};
}

/// An engine of that one convolution, from (outputs, H, W) back to (inputs, H, W).
Engine backward_engine(const Tensor& weight, const Shape& shape, const EngineOptions& options) {
  const auto outputs = static_cast<int>(weight.shape()[0]);
  const auto inputs = static_cast<int>(weight.shape()[1]);
  Network network;
  network.backbone = "gradient";
  network.input_height = static_cast<int>(shape.height);
  network.input_width = static_cast<int>(shape.width);
  append(network, {.kind = LayerKind::input, .name = "input"});
  append(network, {.kind = LayerKind::conv, .name = "from", .outputs = outputs});
  append(network, {.kind = LayerKind::conv, .name = "back", .outputs = inputs});
  TensorMap tensors;
  tensors.emplace("back.weight", flipped(weight));
  tensors.emplace("back.bias", Tensor({inputs}, Values(static_cast<size_t>(inputs), 0)));
  return {network, 2, 3, tensors, options};
}

/// 2×2 pooling back: the gradient goes to the first of the largest.
Values unpool(const Shape& in, const Values& x, const Values& gradient) {
  Values out(x.size(), 0);
  const float* g = gradient.data();
  for (int64_t c = 0; c < in.channels; ++c)
    for (int64_t y = 0; y + 1 < in.height; y += 2)
      for (int64_t column = 0; column + 1 < in.width; column += 2) {
        const int64_t at = (c * in.height + y) * in.width + column;
        int64_t most = at;
        for (const int64_t other : {at + 1, at + in.width, at + in.width + 1})
          if (x[other] > x[most]) most = other;
        out[most] += *g++;
      }
  return out;
}

/// Global pooling back: gap spreads, gmp goes to the first of the largest, stats does both and adds
/// d std / dx = (x − mean) / (n · std).
Values unpool_globally(LayerKind kind, const Shape& in, const Values& x, const Values& gradient) {
  Values out(x.size(), 0);
  const int64_t pixels = in.height * in.width;
  const auto n = static_cast<float>(pixels);
  for (int64_t c = 0; c < in.channels; ++c) {
    const float* from = &x[c * pixels];
    float* to = &out[c * pixels];
    const int64_t most = std::max_element(from, from + pixels) - from;
    if (kind == LayerKind::gmp) {
      to[most] = gradient[c];
      continue;
    }
    for (int64_t i = 0; i < pixels; ++i) to[i] = gradient[c] / n;
    if (kind == LayerKind::gap) continue;
    to[most] += gradient[in.channels + c];
    double sum = 0;
    double squares = 0;
    for (int64_t i = 0; i < pixels; ++i) sum += from[i];
    const double mean = sum / n;
    for (int64_t i = 0; i < pixels; ++i) squares += (from[i] - mean) * (from[i] - mean);
    const double deviation = std::sqrt(squares / n);
    if (deviation <= 0) continue;  // a flat map: the derivative there is taken as 0
    for (int64_t i = 0; i < pixels; ++i)
      to[i] +=
          static_cast<float>(gradient[2 * in.channels + c] * (from[i] - mean) / (n * deviation));
  }
  return out;
}

Values multiply_transposed(const Tensor& weight, const Values& gradient) {
  const auto inputs = static_cast<size_t>(weight.shape()[1]);
  Values out(inputs, 0);
  for (size_t o = 0; o < gradient.size(); ++o) {
    if (gradient[o] == 0) continue;
    const float* row = weight.data() + o * inputs;
    for (size_t i = 0; i < inputs; ++i) out[i] += gradient[o] * row[i];
  }
  return out;
}

/// Layers that an engine of their own computes; the others pass values on as they are.
bool computes(LayerKind kind) {
  return kind != LayerKind::flatten && kind != LayerKind::dropout && kind != LayerKind::input;
}

}  // namespace

struct InputGradient::State {
  Network network;
  std::vector<Shape> shapes;
  size_t target;
  TensorMap tensors;
  EngineOptions options;
  std::map<size_t, Engine> forwards;   // by layer
  std::map<size_t, Engine> backwards;  // of convolutions
  std::map<size_t, Affine> affines;    // of BatchNorm
  std::vector<Values> outputs;         // of layer target + i

  [[nodiscard]] const Tensor& weight(size_t i) const {
    return tensors.at(network.layers[i].name + ".weight");
  }

  [[nodiscard]] Values back(size_t i, Values gradient) {
    const Layer& layer = network.layers[i];
    const Values& in = outputs[layer.source() - target];
    const Values& out = outputs[i - target];
    if (layer.relu)
      for (size_t k = 0; k < gradient.size(); ++k)
        if (!(out[k] > 0)) gradient[k] = 0;
    switch (layer.kind) {
      case LayerKind::conv: {
        Values result(in.size());
        backwards.at(i).run(gradient.data(), 1, result.data());
        return result;
      }
      case LayerKind::dense:
        return multiply_transposed(weight(i), gradient);
      case LayerKind::batchnorm: {
        const Affine& affine = affines.at(i);
        const size_t pixels = gradient.size() / affine.scale.size();
        for (size_t k = 0; k < gradient.size(); ++k) gradient[k] *= affine.scale[k / pixels];
        return gradient;
      }
      case LayerKind::maxpool:
        return unpool(shapes[layer.source()], in, gradient);
      case LayerKind::gap:
      case LayerKind::gmp:
      case LayerKind::stats:
        return unpool_globally(layer.kind, shapes[layer.source()], in, gradient);
      case LayerKind::flatten:
      case LayerKind::dropout:
      case LayerKind::input:
        break;
    }
    return gradient;
  }
};

InputGradient::InputGradient(const Network& network, size_t target, const TensorMap& tensors,
                             const EngineOptions& options)
    : state_(std::make_unique<State>()) {
  State& s = *state_;
  s.network = network;
  s.shapes = output_shapes(network);
  s.target = target;
  s.options = options;
  s.options.max_batch = 1;
  for (const TensorSpec& spec : tensor_specs(network, target + 1, network.layers.size()))
    s.tensors.emplace(spec.name, need_tensor(tensors, spec));
  for (size_t i = target + 1; i < network.layers.size(); ++i) {
    const LayerKind kind = network.layers[i].kind;
    if (computes(kind)) s.forwards.emplace(i, Engine(network, i, i + 1, tensors, s.options));
    if (kind == LayerKind::conv)
      s.backwards.emplace(i, backward_engine(s.weight(i), s.shapes[i], s.options));
    if (kind == LayerKind::batchnorm) s.affines.emplace(i, batchnorm_affine(network, i, s.tensors));
  }
}

InputGradient::~InputGradient() = default;
InputGradient::InputGradient(InputGradient&&) noexcept = default;
InputGradient& InputGradient::operator=(InputGradient&&) noexcept = default;

const std::vector<float>& InputGradient::forward(const std::vector<float>& activations) {
  State& s = *state_;
  s.outputs.assign(1, activations);
  for (size_t i = s.target + 1; i < s.network.layers.size(); ++i) {
    const auto engine = s.forwards.find(i);
    if (engine == s.forwards.end()) {
      s.outputs.push_back(s.outputs.back());
      continue;
    }
    Values out(static_cast<size_t>(s.shapes[i].elements()));
    engine->second.run(s.outputs.back().data(), 1, out.data());
    s.outputs.push_back(std::move(out));
  }
  return s.outputs.back();
}

std::vector<float> InputGradient::backward(size_t output) {
  State& s = *state_;
  Values gradient(s.outputs.back().size(), 0);
  gradient.at(output) = 1;
  for (size_t i = s.network.layers.size() - 1; i > s.target; --i)
    gradient = s.back(i, std::move(gradient));
  return gradient;
}

}  // namespace graft::engine
