#include "weights/norm_epsilon.h"

#include <cmath>
#include <utility>
#include <vector>

namespace graft {

Tensor with_epsilon(const Tensor& weight, const Tensor& variance, double from, double to) {
  if (static_cast<float>(from) == static_cast<float>(to)) return weight;
  std::vector<float> out(weight.values().begin(), weight.values().end());
  for (size_t i = 0; i < out.size(); ++i)
    out[i] *=
        static_cast<float>(std::sqrt((variance.values()[i] + to) / (variance.values()[i] + from)));
  return {weight.shape(), std::move(out)};
}

}  // namespace graft
