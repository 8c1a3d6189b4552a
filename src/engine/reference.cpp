#include "engine/reference.h"

#include <algorithm>
#include <cmath>

namespace graft::engine {
namespace {

using Values = std::vector<double>;

Values convolve(const Window& window, const Shape& in_shape, const Values& in,
                const Shape& out_shape, const Tensor& weight, const Tensor& bias) {
  const int64_t H = in_shape.height;
  const int64_t W = in_shape.width;
  const int64_t S = window.kernel;
  const int64_t in_group = in_shape.channels / window.groups;
  const int64_t out_group = out_shape.channels / window.groups;
  Values out;
  for (int64_t k = 0; k < out_shape.channels; ++k)
    for (int64_t y = 0; y < out_shape.height; ++y)
      for (int64_t x = 0; x < out_shape.width; ++x) {
        double sum = bias.data()[k];
        for (int64_t c = 0; c < in_group; ++c)
          for (int64_t dy = 0; dy < S; ++dy)
            for (int64_t dx = 0; dx < S; ++dx) {
              const int64_t sy = y * window.stride + dy - window.padding;
              const int64_t sx = x * window.stride + dx - window.padding;
              if (sy < 0 || sy >= H || sx < 0 || sx >= W) continue;
              sum += in[((k / out_group * in_group + c) * H + sy) * W + sx] *
                     weight.data()[((k * in_group + c) * S + dy) * S + dx];
            }
        out.push_back(sum);
      }
  return out;
}

Values multiply(const Values& in, const Tensor& weight, const Tensor& bias) {
  Values out(bias.values().size());
  for (size_t o = 0; o < out.size(); ++o) {
    double sum = bias.data()[o];
    for (size_t i = 0; i < in.size(); ++i) sum += in[i] * weight.data()[o * in.size() + i];
    out[o] = sum;
  }
  return out;
}

Values pool(const Window& window, const Shape& in_shape, const Values& in, const Shape& out_shape) {
  Values out;
  for (int64_t c = 0; c < out_shape.channels; ++c)
    for (int64_t y = 0; y < out_shape.height; ++y)
      for (int64_t x = 0; x < out_shape.width; ++x) {
        double most = -INFINITY;
        for (int64_t sy = y * window.stride; sy < y * window.stride + window.kernel; ++sy)
          for (int64_t sx = x * window.stride; sx < x * window.stride + window.kernel; ++sx)
            most = std::max(most, in[(c * in_shape.height + sy) * in_shape.width + sx]);
        out.push_back(most);
      }
  return out;
}

Values pool_globally(LayerKind kind, const Shape& s, const Values& in) {
  const int64_t pixels = s.height * s.width;
  Values mean, most, deviation;
  for (int64_t c = 0; c < s.channels; ++c) {
    const auto first = in.begin() + c * pixels;
    double sum = 0;
    for (auto at = first; at != first + pixels; ++at) sum += *at;
    mean.push_back(sum / static_cast<double>(pixels));
    most.push_back(*std::max_element(first, first + pixels));
    double squares = 0;
    for (auto at = first; at != first + pixels; ++at) squares += std::pow(*at - mean.back(), 2);
    deviation.push_back(std::sqrt(squares / static_cast<double>(pixels)));
  }
  if (kind == LayerKind::gap) return mean;
  if (kind == LayerKind::gmp) return most;
  mean.insert(mean.end(), most.begin(), most.end());
  mean.insert(mean.end(), deviation.begin(), deviation.end());
  return mean;
}

Values normalise(const Shape& s, double epsilon, Values in, const std::string& layer,
                 const TensorMap& tensors) {
  const int64_t pixels = s.height * s.width;
  const auto value = [&](const char* role, int64_t c) -> double {
    return tensors.at(layer + role).data()[c];
  };
  for (int64_t c = 0; c < s.channels; ++c)
    for (int64_t i = 0; i < pixels; ++i) {
      double& x = in[c * pixels + i];
      x = (x - value(".running_mean", c)) / std::sqrt(value(".running_var", c) + epsilon) *
              value(".weight", c) +
          value(".bias", c);
    }
  return in;
}

}  // namespace

std::vector<double> reference_forward(const Network& network, size_t begin, size_t end,
                                      const TensorMap& tensors, const std::vector<double>& in) {
  const std::vector<Shape> shapes = output_shapes(network);
  Values values = in;
  for (size_t i = std::max<size_t>(begin, 1); i < end; ++i) {
    const Layer& layer = network.layers[i];
    const Shape& shape = shapes[layer.source()];
    switch (layer.kind) {
      case LayerKind::conv:
        values = convolve(layer.window, shape, values, shapes[i],
                          tensors.at(layer.name + ".weight"), tensors.at(layer.name + ".bias"));
        break;
      case LayerKind::dense:
        values =
            multiply(values, tensors.at(layer.name + ".weight"), tensors.at(layer.name + ".bias"));
        break;
      case LayerKind::batchnorm:
        values = normalise(shape, layer.epsilon, std::move(values), layer.name, tensors);
        break;
      case LayerKind::maxpool:
        values = pool(layer.window, shape, values, shapes[i]);
        break;
      case LayerKind::gap:
      case LayerKind::gmp:
      case LayerKind::stats:
        values = pool_globally(layer.kind, shape, values);
        break;
      case LayerKind::input:
      case LayerKind::flatten:
      case LayerKind::dropout:
        break;
    }
    if (layer.relu)
      for (double& x : values) x = std::max(x, 0.0);
  }
  return values;
}

}  // namespace graft::engine
