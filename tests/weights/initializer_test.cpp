#include <algorithm>
#include <cmath>

#include "support.h"
#include "weights/load.h"

namespace graft {
namespace {

struct Spread {
  double least = 0;
  double most = 0;
  double mean = 0;
  double deviation = 0;
};

Spread spread(const Tensor& tensor) {
  const auto values = tensor.values();
  const auto [least, most] = std::minmax_element(values.begin(), values.end());
  Spread s{*least, *most, 0, 0};
  const auto n = static_cast<double>(values.size());
  for (const float v : values) s.mean += v / n;
  for (const float v : values) s.deviation += (v - s.mean) * (v - s.mean) / n;
  s.deviation = std::sqrt(s.deviation);
  return s;
}

Network head() {
  return with_head(cut_after(backbone("vgg-mini", 64, 64), "block2_pool"),
                   "conv:64 flatten dense:256 dropout:0.2", 6);
}

TEST(Initializer, GlorotUniformFillsItsBounds) {
  const Network net = head();
  const TensorMap tensors =
      random_tensors(net, 0, net.layers.size(), 3, Initializer::glorot_uniform);
  int matrices = 0;
  for (const TensorSpec& spec : tensor_specs(net)) {
    const Spread s = spread(tensors.at(spec.name));
    if (spec.shape.size() < 2) {
      EXPECT_TRUE(s.least == 0 && s.most == 0) << spec.name;
      continue;
    }
    // A convolution's window counts on both sides: 9 · channels.
    const double field = spec.shape.size() == 4 ? 9 : 1;
    const double limit =
        std::sqrt(6.0 / (field * static_cast<double>(spec.shape[0] + spec.shape[1])));
    EXPECT_TRUE(s.least >= -limit && s.most <= limit) << spec.name;
    EXPECT_TRUE(s.least < -0.98 * limit && s.most > 0.98 * limit) << spec.name;
    EXPECT_NEAR(s.deviation / (limit / std::sqrt(3.0)), 1, 0.05) << spec.name;
    EXPECT_NEAR(s.mean / limit, 0, 0.08) << spec.name;
    ++matrices;
  }
  EXPECT_GE(matrices, 6);
}

TEST(Initializer, HeNormalIsTheDefaultAndAsItWas) {
  const Network net = head();
  const TensorMap tensors = random_tensors(net, 0, net.layers.size(), 3);
  const std::string hidden = tensor_specs(net)[tensor_specs(net).size() - 4].name;
  const Tensor& weights = tensors.at(hidden);
  const auto fan_in = static_cast<double>(weights.shape()[1]);
  EXPECT_NEAR(spread(weights).deviation * std::sqrt(fan_in / 2), 1, 0.02);
  EXPECT_GT(spread(weights).most, 3 * std::sqrt(2 / fan_in)) << "no bounds";
  const Tensor& last = tensors.at("predictions.weight");
  EXPECT_NEAR(spread(last).deviation * std::sqrt(256.0), 1, 0.05);
}

}  // namespace
}  // namespace graft
