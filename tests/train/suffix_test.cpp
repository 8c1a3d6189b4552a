// The suffix in LibTorch against figures that PyTorch computed in Python in float64
// (make_suffix_golden.py), and what makes it trainable.
#include "train/suffix.h"

#include "engine/engine.h"

#include <torch/torch.h>

#include "support.h"
#include "weights/load.h"
#include "weights/safetensors.h"

namespace graft {
namespace {

Network golden_network() {
  Network net{"test", 8, 8, {}};
  append(net, {.kind = LayerKind::input, .name = "input"});
  append(net, {.kind = LayerKind::conv, .name = "block1_conv1", .outputs = 5, .relu = true});
  append(net, {.kind = LayerKind::maxpool, .name = "block1_pool"});
  return with_head(std::move(net), "conv:6 batchnorm stats dense:7", 3);
}

torch::Tensor load(const Tensor& tensor) {
  return torch::from_blob(const_cast<float*>(tensor.data()), tensor.shape()).clone();
}

/// Largest difference over the larger of the largest value and a floor, so that gradients that
/// should be zero are compared on the scale of the others.
double difference(const torch::Tensor& got, const torch::Tensor& want, double floor) {
  const double most = std::max(want.abs().max().item<double>(), floor);
  return (got - want).abs().max().item<double>() / most;
}

struct Golden {
  SafetensorsFile file = read_safetensors(GRAFT_GOLDEN);
  TensorMap initial;
  Golden() {
    for (const TensorSpec& spec : tensor_specs(golden_network()))
      initial.emplace(spec.name, file.tensors.at("before/" + spec.name));
  }
  torch::Tensor get(const std::string& name) const { return load(file.tensors.at(name)); }
};

// Figures are float64 rounded to float32; a step in float32 through four layers of at most 45 terms
// stays within 1e-5 of the largest value.
constexpr double kTolerance = 1e-5;

TEST(Suffix, ForwardLossGradientsAndAdamStepArePyTorchs) {
  const Golden golden;
  Suffix suffix(golden_network(), 1, golden.initial, torch::kCPU);
  const torch::Tensor x = golden.get("x").flatten(1);
  const torch::Tensor labels = golden.get("y").to(torch::kLong);
  {
    const torch::NoGradGuard guard;
    EXPECT_LT(difference(suffix.forward(x, false), golden.get("logits_inference"), 0), kTolerance);
  }
  torch::optim::Adam adam(suffix.parameters(), torch::optim::AdamOptions(1e-2));
  const torch::Tensor logits = suffix.forward(x, true);
  EXPECT_LT(difference(logits, golden.get("logits_training"), 0), kTolerance);
  const torch::Tensor loss = torch::nn::functional::cross_entropy(logits, labels);
  EXPECT_NEAR(loss.item<double>(), golden.get("loss").item<double>(), 1e-6);
  loss.backward();
  adam.step();
  for (const TensorSpec& spec : tensor_specs(golden_network())) {
    const torch::Tensor tensor = suffix.tensor(spec.name);
    if (spec.trainable) {
      EXPECT_LT(difference(tensor.grad(), golden.get("gradient/" + spec.name), 1e-2), 1e-4)
          << spec.name;
    }
    // A bias before a BatchNorm has a gradient of exactly zero, whose rounding noise Adam would
    // turn into a whole step.
    if (spec.name != "head_conv1.bias") {
      EXPECT_LT(difference(tensor, golden.get("after/" + spec.name), 0), 1e-4) << spec.name;
    }
  }
}

TEST(Suffix, MatchesTheReferenceOfTheEngineAtInference) {
  const Network net = with_head(cut_after(backbone("vgg-mini", 32, 32), "block2_pool"),
                                "conv:4 batchnorm dropout:0.5 maxpool gmp dense:5 batchnorm", 3);
  const TensorMap tensors = random_tensors(net, 0, net.layers.size(), 3);
  Suffix suffix(net, 4, tensors, torch::kCPU);
  const auto shape = output_shapes(net)[3];
  torch::manual_seed(1);
  const torch::Tensor x = torch::randn({2, shape.elements()});
  engine::Engine engine(net, 4, net.layers.size(), tensors);
  torch::Tensor out = torch::empty({2, 3});
  engine.run(x.data_ptr<float>(), 2, out.data_ptr<float>());
  const torch::NoGradGuard guard;
  EXPECT_LT(difference(suffix.forward(x, false), out, 0), kTolerance);
}

TEST(Suffix, ConstantMapsHaveFiniteGradients) {
  // A dead map has a standard deviation of zero, where the square root has no derivative.
  const Network net = with_head(cut_after(backbone("vgg11", 32, 32), "block1_conv1"), "stats", 2);
  TensorMap tensors = random_tensors(net, 0, net.layers.size(), 1);
  tensors.insert_or_assign("block1_conv1.bias", Tensor({64}, std::vector<float>(64, -1e6F)));
  Suffix suffix(net, 1, tensors, torch::kCPU);
  const torch::Tensor logits = suffix.forward(torch::randn({2, 3 * 32 * 32}), true);
  torch::nn::functional::cross_entropy(logits, torch::tensor({0, 1}, torch::kLong)).backward();
  for (const torch::Tensor& parameter : suffix.parameters())
    EXPECT_TRUE(torch::isfinite(parameter.grad()).all().item<bool>());
}

TEST(Suffix, HoldsExactlyTheTrainableLayers) {
  const Network net = with_head(backbone("vgg16_bn", 32, 32), "gap dense:8", 4);
  const FreezePlan plan = freeze_plan(net, "3");
  const size_t begin = frozen_prefix_end(net, plan);
  Suffix suffix(net, begin, random_tensors(net, 0, net.layers.size(), 1), torch::kCPU);
  int64_t trainable = 0;
  for (const torch::Tensor& parameter : suffix.parameters()) trainable += parameter.numel();
  EXPECT_EQ(trainable, summarize(net, plan).trainable);
  EXPECT_EQ(suffix.snapshot().count("block5_conv3.weight"), 1U);
  EXPECT_EQ(suffix.snapshot().count("block5_conv2.weight"), 0U);
}

}  // namespace
}  // namespace graft
