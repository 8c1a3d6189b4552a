#include "train/fused_optimizer.h"

#include "graft/train.h"

#include <ATen/Parallel.h>
#include <malloc.h>

#include <cmath>
#include <utility>

#include "train/kernels.h"

namespace graft {
namespace {

constexpr double kBeta1 = 0.9;
constexpr double kEpsilon = 1e-8;
constexpr int64_t kChunk = 1 << 16U;

}  // namespace

FusedOptimizer::FusedOptimizer(OptimizerOptions options, std::vector<torch::Tensor> parameters,
                               std::vector<double> factors)
    : options_(std::move(options)),
      parameters_(std::move(parameters)),
      factors_(std::move(factors)) {
  factors_.resize(parameters_.size(), 1);
  for (const torch::Tensor& p : parameters_) {
    first_.push_back(torch::zeros_like(p).detach());
    if (options_.kind != OptimizerKind::sgd) second_.push_back(torch::zeros_like(p).detach());
  }
}

void FusedOptimizer::zero_grad() {
  for (torch::Tensor& p : parameters_) p.mutable_grad().reset();
}

void FusedOptimizer::step(double common_rate, const PostponedGradients* postponed) {
  const torch::NoGradGuard no_gradients;
  ++steps_;
  const auto t = static_cast<double>(steps_ - without_moments_);
  const bool decoupled = options_.kind == OptimizerKind::adamw;
  for (size_t k = 0; k < parameters_.size(); ++k) {
    torch::Tensor& p = parameters_[k];
    const bool late = postponed != nullptr && postponed->has(p);
    if (!late && !p.grad().defined()) continue;
    const double learning_rate = common_rate * factors_[k];
    const training::AdamStep s{
        static_cast<float>(kBeta1),
        static_cast<float>(options_.beta2),
        static_cast<float>(learning_rate / (1 - std::pow(kBeta1, t))),
        static_cast<float>(1 / std::sqrt(1 - std::pow(options_.beta2, t))),
        static_cast<float>(kEpsilon),
        static_cast<float>(decoupled ? 0 : options_.weight_decay),
        static_cast<float>(decoupled ? 1 - learning_rate * options_.weight_decay : 1)};
    if (!p.device().is_cpu()) {
      // On a GPU the same formulas in LibTorch's own operations.
      const torch::Tensor g =
          options_.weight_decay > 0 && !decoupled ? p.grad() + options_.weight_decay * p : p.grad();
      if (options_.kind == OptimizerKind::sgd) {
        first_[k].mul_(options_.momentum).add_(g);
        p.sub_(first_[k], learning_rate);
        continue;
      }
      first_[k].mul_(kBeta1).add_(g, 1 - kBeta1);
      second_[k].mul_(options_.beta2).addcmul_(g, g, 1 - options_.beta2);
      p.mul_(s.keep).addcdiv_(first_[k], second_[k].sqrt().mul_(s.root_bias).add_(kEpsilon),
                              -s.rate);
      continue;
    }
    const training::SgdStep sgd{static_cast<float>(learning_rate),
                                static_cast<float>(options_.momentum),
                                static_cast<float>(options_.weight_decay)};
    float* values = p.data_ptr<float>();
    float* m = first_[k].data_ptr<float>();
    float* v = second_.empty() ? nullptr : second_[k].data_ptr<float>();
    const auto update = [&](int64_t offset, int64_t count, const float* gradient,
                            training::Runs runs) {
      const auto n = static_cast<size_t>(count);
      if (v != nullptr)
        training::kernels().adam(s, n, values + offset, gradient, runs, m + offset, v + offset);
      else
        training::kernels().sgd(sgd, n, values + offset, gradient, runs, m + offset);
    };
    if (late) {
      postponed->compute(p, update);
      continue;
    }
    const torch::Tensor gradient = p.grad().contiguous();
    const float* g = gradient.data_ptr<float>();
    at::parallel_for(0, p.numel(), kChunk, [&](int64_t begin, int64_t end) {
      const auto count = static_cast<size_t>(end - begin);
      update(begin, end - begin, g + begin, {count, count});
    });
  }
}

double FusedOptimizer::clip_gradients(double limit) {
  const double norm = std::sqrt(squared_norm());
  if (norm > limit) scale_gradients(limit / norm);
  return norm;
}

double FusedOptimizer::squared_norm() const {
  const torch::NoGradGuard no_gradients;
  double squares = 0;
  for (const torch::Tensor& p : parameters_)
    if (p.grad().defined()) squares += std::pow(p.grad().norm().item<double>(), 2);
  return squares;
}

void FusedOptimizer::scale_gradients(double factor) {
  const torch::NoGradGuard no_gradients;
  for (torch::Tensor& p : parameters_)
    if (p.grad().defined()) p.mutable_grad().mul_(factor);
}

void keep_freed_memory() {
  ::mallopt(M_MMAP_MAX, 0);
  ::mallopt(M_TRIM_THRESHOLD, -1);
}

}  // namespace graft
