#include "train/mix.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace graft {
namespace {

double draw_gamma(Random& random, double a) {
  // Below 1 by way of a + 1.
  if (a < 1) return draw_gamma(random, a + 1) * std::pow(1 - random.uniform(), 1 / a);
  const double d = a - 1.0 / 3;
  const double c = 1 / std::sqrt(9 * d);
  while (true) {
    const double x = random.normal();
    const double v = std::pow(1 + c * x, 3);
    if (v <= 0) continue;
    if (std::log(1 - random.uniform()) < 0.5 * x * x + d - d * v + d * std::log(v)) return d * v;
  }
}

torch::Tensor draw_partners(int64_t count, Random& random) {
  std::vector<int64_t> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  random.shuffle(order);
  return torch::tensor(order, torch::kLong);
}

}  // namespace

double draw_beta(Random& random, double a) {
  const double x = draw_gamma(random, a);
  const double y = draw_gamma(random, a);
  return x + y > 0 ? x / (x + y) : 0.5;
}

Mix mixup(torch::Tensor& inputs, double alpha, Random& random) {
  Mix mix{draw_partners(inputs.size(0), random), draw_beta(random, alpha)};
  inputs = inputs * mix.share + inputs.index_select(0, mix.partner) * (1 - mix.share);
  return mix;
}

Mix cutmix(torch::Tensor& inputs, double alpha, Random& random) {
  if (inputs.dim() != 4) return mixup(inputs, alpha, random);
  Mix mix{draw_partners(inputs.size(0), random), draw_beta(random, alpha)};
  const int64_t height = inputs.size(2);
  const int64_t width = inputs.size(3);
  const double side = std::sqrt(1 - mix.share);
  const double y = random.uniform() * static_cast<double>(height);
  const double x = random.uniform() * static_cast<double>(width);
  const auto edge = [](double at, int64_t size) {
    return std::clamp<int64_t>(std::llround(at), 0, size);
  };
  const int64_t top = edge(y - side * static_cast<double>(height) / 2, height);
  const int64_t bottom = edge(y + side * static_cast<double>(height) / 2, height);
  const int64_t left = edge(x - side * static_cast<double>(width) / 2, width);
  const int64_t right = edge(x + side * static_cast<double>(width) / 2, width);
  const torch::Tensor others = inputs.index_select(0, mix.partner);
  inputs = inputs.clone();
  inputs.slice(2, top, bottom)
      .slice(3, left, right)
      .copy_(others.slice(2, top, bottom).slice(3, left, right));
  // The rectangle may have been cut off by the border.
  mix.share = 1 - static_cast<double>((bottom - top) * (right - left)) /
                      static_cast<double>(height * width);
  return mix;
}

}  // namespace graft
