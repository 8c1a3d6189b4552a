#include "train/optimizer.h"

#include <ATen/Parallel.h>
#include <malloc.h>

#include <cmath>
#include <utility>

namespace graft {
namespace {

constexpr double kBeta1 = 0.9;
constexpr double kBeta2 = 0.999;
constexpr double kEpsilon = 1e-8;
constexpr int64_t kChunk = 1 << 16U;

/// The constants of one Adam step, in the precision of the arrays.
struct AdamStep {
  float beta1, beta2;
  float rate;       // learning rate over the first moment's bias
  float root_bias;  // 1 / √(second moment's bias)
  float decay;      // added to the gradient
  float keep;       // what is left of the parameter after decoupled decay
};

void adam(const AdamStep& s, int64_t count, float* __restrict p, const float* __restrict g,
          float* __restrict m, float* __restrict v) {
  for (int64_t i = 0; i < count; ++i) {
    const float gradient = g[i] + s.decay * p[i];
    m[i] = s.beta1 * m[i] + (1 - s.beta1) * gradient;
    v[i] = s.beta2 * v[i] + (1 - s.beta2) * gradient * gradient;
    const float root = std::sqrt(v[i]) * s.root_bias + static_cast<float>(kEpsilon);
    p[i] = s.keep * p[i] - s.rate * m[i] / root;
  }
}

void sgd(float rate, float momentum, float decay, int64_t count, float* __restrict p,
         const float* __restrict g, float* __restrict m) {
  for (int64_t i = 0; i < count; ++i) {
    m[i] = momentum * m[i] + g[i] + decay * p[i];
    p[i] -= rate * m[i];
  }
}

}  // namespace

Optimizer::Optimizer(OptimizerOptions options, std::vector<torch::Tensor> parameters,
                     std::vector<double> factors)
    : options_(std::move(options)),
      parameters_(std::move(parameters)),
      factors_(std::move(factors)) {
  factors_.resize(parameters_.size(), 1);
  for (const torch::Tensor& p : parameters_) {
    first_.push_back(torch::zeros_like(p).detach());
    if (options_.name != "sgd") second_.push_back(torch::zeros_like(p).detach());
  }
}

void Optimizer::zero_grad() {
  for (torch::Tensor& p : parameters_) p.mutable_grad().reset();
}

void Optimizer::step(double common_rate) {
  const torch::NoGradGuard no_gradients;
  ++steps_;
  const auto t = static_cast<double>(steps_);
  const bool decoupled = options_.name == "adamw";
  for (size_t k = 0; k < parameters_.size(); ++k) {
    torch::Tensor& p = parameters_[k];
    if (!p.grad().defined()) continue;
    const double learning_rate = common_rate * factors_[k];
    const AdamStep s{static_cast<float>(kBeta1),
                     static_cast<float>(kBeta2),
                     static_cast<float>(learning_rate / (1 - std::pow(kBeta1, t))),
                     static_cast<float>(1 / std::sqrt(1 - std::pow(kBeta2, t))),
                     static_cast<float>(decoupled ? 0 : options_.weight_decay),
                     static_cast<float>(decoupled ? 1 - learning_rate * options_.weight_decay : 1)};
    if (!p.device().is_cpu()) {
      // On a GPU the same formulas in LibTorch's own operations.
      const torch::Tensor g =
          options_.weight_decay > 0 && !decoupled ? p.grad() + options_.weight_decay * p : p.grad();
      if (options_.name == "sgd") {
        first_[k].mul_(options_.momentum).add_(g);
        p.sub_(first_[k], learning_rate);
        continue;
      }
      first_[k].mul_(kBeta1).add_(g, 1 - kBeta1);
      second_[k].mul_(kBeta2).addcmul_(g, g, 1 - kBeta2);
      p.mul_(s.keep).addcdiv_(first_[k], second_[k].sqrt().mul_(s.root_bias).add_(kEpsilon),
                              -s.rate);
      continue;
    }
    const torch::Tensor gradient = p.grad().contiguous();
    float* values = p.data_ptr<float>();
    const float* g = gradient.data_ptr<float>();
    float* m = first_[k].data_ptr<float>();
    float* v = second_.empty() ? nullptr : second_[k].data_ptr<float>();
    at::parallel_for(0, p.numel(), kChunk, [&](int64_t begin, int64_t end) {
      if (v != nullptr)
        adam(s, end - begin, values + begin, g + begin, m + begin, v + begin);
      else
        sgd(static_cast<float>(learning_rate), static_cast<float>(options_.momentum),
            static_cast<float>(options_.weight_decay), end - begin, values + begin, g + begin,
            m + begin);
    });
  }
}

double Optimizer::clip_gradients(double limit) {
  const torch::NoGradGuard no_gradients;
  double squares = 0;
  for (const torch::Tensor& p : parameters_)
    if (p.grad().defined()) squares += std::pow(p.grad().norm().item<double>(), 2);
  const double norm = std::sqrt(squares);
  if (norm > limit)
    for (torch::Tensor& p : parameters_)
      if (p.grad().defined()) p.mutable_grad().mul_(limit / norm);
  return norm;
}

void keep_freed_memory() {
  ::mallopt(M_MMAP_MAX, 0);
  ::mallopt(M_TRIM_THRESHOLD, -1);
}

}  // namespace graft
