// head_step graft|libtorch: training steps of the notebook's head (25088 → 4096 → 1072 → 6, batch
// 64) on features in memory, one for each line on stdin, as Graft makes them or with LibTorch's own
// C++ Adam. Prints the seconds of each. Driven by head_step.py.
#include <fmt/format.h>
#include <torch/torch.h>

#include <chrono>
#include <functional>
#include <iostream>
#include <string>
#include <vector>

#include "base/threads.h"
#include "train/dense.h"
#include "train/fused_optimizer.h"
#include "train/trainer.h"

namespace {

std::vector<torch::Tensor> make_head() {
  std::vector<torch::Tensor> made;
  int64_t inputs = 25088;
  for (const int64_t outputs : {4096, 1072, 6}) {
    made.push_back((torch::randn({outputs, inputs}) * 0.01).set_requires_grad(true));
    made.push_back(torch::zeros({outputs}).set_requires_grad(true));
    inputs = outputs;
  }
  return made;
}

template <class Linear>
torch::Tensor loss_of(const std::vector<torch::Tensor>& p, const torch::Tensor& x,
                      const torch::Tensor& y, const Linear& linear) {
  torch::Tensor h = torch::relu(linear(x, p[0], p[1]));
  h = torch::relu(linear(h, p[2], p[3]));
  return torch::nn::functional::cross_entropy(linear(h, p[4], p[5]), y);
}

double seconds(const std::function<void()>& body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

int main(int argc, char** argv) {
  const std::string which = argc > 1 ? argv[1] : "";
  if (which != "graft" && which != "libtorch") return 2;
  graft::set_training_threads(graft::available_processors());
  if (which == "graft") graft::keep_freed_memory();
  const torch::Tensor x = torch::rand({64, 25088});
  const torch::Tensor y = torch::randint(6, {64});
  const auto head = make_head();
  graft::FusedOptimizer own({graft::OptimizerKind::adam}, head);
  graft::PostponedGradients postponed;
  torch::optim::Adam other(head, torch::optim::AdamOptions(1e-4));
  const auto step = [&] {
    if (which == "graft") {
      own.zero_grad();
      postponed.clear();
      loss_of(head, x, y, [&](const auto& in, const auto& weight, const auto& bias) {
        return graft::dense(in, weight, bias, &postponed);
      }).backward();
      own.step(1e-4, &postponed);
    } else {
      other.zero_grad();
      loss_of(head, x, y, [](const auto& in, const auto& weight, const auto& bias) {
        return torch::linear(in, weight, bias);
      }).backward();
      other.step();
    }
  };
  step();  // moments and gradients are made in the first step
  fmt::print("ready\n");
  std::fflush(stdout);
  for (std::string line; std::getline(std::cin, line);) {
    fmt::print("{}\n", seconds(step));
    std::fflush(stdout);
  }
  return 0;
}
