#include "train/suffix.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "base/fail.h"
#include "engine/fold.h"
#include "train/batch_norm.h"
#include "train/convolution.h"

namespace graft {
namespace {

// Share of the new batch in the running statistics: PyTorch's default.
constexpr double kBatchNormMomentum = 0.1;
// Below this variance a map counts as constant: the square root has no gradient at zero.
constexpr double kLeastVariance = 1e-12;

torch::Tensor statistics(const torch::Tensor& maps) {
  const torch::Tensor flat = maps.flatten(2);
  const torch::Tensor variance = flat.var(/*dim=*/2, /*unbiased=*/false);
  const torch::Tensor deviation =
      torch::where(variance > kLeastVariance, variance.clamp_min(kLeastVariance).sqrt(),
                   torch::zeros_like(variance));
  return torch::cat({flat.mean(2), flat.amax(2), deviation}, 1);
}

}  // namespace

Tensor to_tensor(const torch::Tensor& tensor) {
  auto owner = std::make_shared<torch::Tensor>(tensor.detach().cpu().contiguous());
  const std::span<const float> values(owner->data_ptr<float>(),
                                      static_cast<size_t>(owner->numel()));
  return {tensor.sizes().vec(), values, owner};
}

Suffix::Suffix(const Network& network, size_t begin, const TensorMap& initial, torch::Device device,
               Precision precision)
    : network_(network),
      shapes_(output_shapes(network)),
      begin_(begin),
      device_(device),
      precision_(precision),
      generator_(at::detail::createCPUGenerator()) {
  for (const TensorSpec& spec : tensor_specs(network, begin, network.layers.size())) {
    const Tensor& source = need_tensor(initial, spec);
    torch::Tensor tensor = torch::empty(spec.shape);
    std::copy(source.values().begin(), source.values().end(), tensor.data_ptr<float>());
    tensor = tensor.to(device);
    tensor.set_requires_grad(spec.trainable);
    tensors_.emplace_back(spec, tensor);
  }
}

torch::Tensor Suffix::tensor(const std::string& name) const {
  for (const auto& [spec, tensor] : tensors_)
    if (spec.name == name) return tensor;
  fail(ErrorKind::input, "the trainable part has no tensor {}", name);
}

torch::Tensor Suffix::get(const Layer& layer, const char* role) const {
  return tensor(layer.name + role);
}

void Suffix::seed_dropout(uint64_t seed) { generator_ = at::detail::createCPUGenerator(seed); }

/// torch::dropout's own steps, with a generator of this run's.
torch::Tensor Suffix::dropout_mask(const torch::Tensor& x, double rate, const BatchPart& part) {
  torch::Tensor mask;
  if (part.group == nullptr) {
    mask = torch::empty_like(x, torch::Device(torch::kCPU));
  } else {
    // The mask of the whole batch, as one process draws it, in the order of its memory.
    std::vector<int64_t> sizes = x.sizes().vec();
    std::vector<int64_t> strides = x.strides().vec();
    strides[0] = x.numel() / sizes[0];
    sizes[0] = std::max(part.count, part.first + sizes[0]);
    mask = torch::empty_strided(sizes, strides, torch::TensorOptions(torch::kFloat));
  }
  mask.bernoulli_(1 - rate, generator_).div_(1 - rate);
  if (part.group != nullptr) mask = mask.narrow(0, part.first, x.size(0));
  return mask.to(x.device());
}

torch::Tensor Suffix::forward(torch::Tensor x, bool training, PostponedGradients* postponed,
                              const BatchPart& part) {
  const Shape& in = shapes_[begin_ - 1];
  if (in.flat)
    x = x.view({-1, in.channels});
  else
    x = x.view({-1, in.channels, in.height, in.width});
  for (size_t i = begin_; i < network_.layers.size(); ++i) {
    const Layer& layer = network_.layers[i];
    switch (layer.kind) {
      case LayerKind::conv:
        x = convolution(x, get(layer, ".weight"), get(layer, ".bias"), precision_);
        break;
      case LayerKind::dense:
        x = dense(x, get(layer, ".weight"), get(layer, ".bias"), postponed, precision_);
        break;
      case LayerKind::batchnorm:
        if (training && part.group != nullptr) {
          x = group_batch_norm(
              x, get(layer, ".weight"), get(layer, ".bias"),
              {get(layer, ".running_mean"), get(layer, ".running_var"), kBatchNormMomentum},
              layer.epsilon, part);
          break;
        }
        x = torch::batch_norm(x, get(layer, ".weight"), get(layer, ".bias"),
                              get(layer, ".running_mean"), get(layer, ".running_var"), training,
                              kBatchNormMomentum, layer.epsilon, /*cudnn_enabled=*/true);
        break;
      case LayerKind::maxpool:
        x = torch::max_pool2d(x, 2);
        break;
      case LayerKind::gap:
        x = x.mean({2, 3});
        break;
      case LayerKind::gmp:
        x = x.amax({2, 3});
        break;
      case LayerKind::stats:
        x = statistics(x);
        break;
      case LayerKind::flatten:
        x = x.flatten(1);
        break;
      case LayerKind::dropout:
        if (training && layer.rate > 0) x = x * dropout_mask(x, layer.rate, part);
        break;
      case LayerKind::input:
        break;
    }
    if (layer.relu) x = torch::relu(x);
  }
  return x;
}

std::vector<torch::Tensor> Suffix::parameters() const {
  std::vector<torch::Tensor> out;
  for (const auto& [spec, tensor] : tensors_)
    if (spec.trainable) out.push_back(tensor);
  return out;
}

std::vector<double> Suffix::rate_factors(double decay) const {
  std::vector<double> of_layer(network_.layers.size(), 1);
  double factor = decay;
  bool in_block = false;  // a layer with parameters was seen since the last pooling
  for (size_t i = network_.layers.size(); i-- > begin_;) {
    const Layer& layer = network_.layers[i];
    if (layer.in_head) continue;
    if (layer.kind == LayerKind::maxpool && in_block) {
      factor *= decay;
      in_block = false;
    }
    in_block = in_block || layer.kind == LayerKind::conv || layer.kind == LayerKind::dense;
    of_layer[i] = factor;
  }
  std::vector<double> out;
  for (size_t i = begin_; i < network_.layers.size(); ++i)
    for (const TensorSpec& spec : tensor_specs(network_, i, i + 1))
      if (spec.trainable) out.push_back(of_layer[i]);
  return out;
}

std::vector<torch::Tensor> Suffix::tensors() const {
  std::vector<torch::Tensor> out;
  for (const auto& [spec, tensor] : tensors_) out.push_back(tensor.detach());
  return out;
}

std::vector<torch::Tensor> Suffix::copies() const {
  std::vector<torch::Tensor> out;
  for (const auto& [spec, tensor] : tensors_) out.push_back(tensor.detach().clone());
  return out;
}

void Suffix::average_into(std::vector<torch::Tensor>& average, double decay) const {
  const torch::NoGradGuard no_gradients;
  for (size_t i = 0; i < tensors_.size(); ++i) average[i].lerp_(tensors_[i].second, 1 - decay);
}

void Suffix::swap(std::vector<torch::Tensor>& other) {
  const torch::NoGradGuard no_gradients;
  for (size_t i = 0; i < tensors_.size(); ++i) {
    const torch::Tensor mine = tensors_[i].second.detach().clone();
    tensors_[i].second.detach().copy_(other[i]);
    other[i].copy_(mine);
  }
}

TensorMap Suffix::snapshot() const {
  TensorMap out;
  for (const auto& [spec, tensor] : tensors_) out.emplace(spec.name, to_tensor(tensor));
  return out;
}

std::string Suffix::not_finite() const {
  const torch::NoGradGuard no_gradients;
  for (const auto& [spec, tensor] : tensors_)
    // A sum is not finite where a term is not; one that overflows is looked at term by term.
    if (!std::isfinite(tensor.sum().item<float>()) && !tensor.isfinite().all().item<bool>())
      return spec.name;
  return {};
}

bool Suffix::has_batchnorm() const {
  return std::any_of(network_.layers.begin() + static_cast<long>(begin_), network_.layers.end(),
                     [](const Layer& layer) { return layer.kind == LayerKind::batchnorm; });
}

}  // namespace graft
