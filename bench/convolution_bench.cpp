// convolution_bench [IMAGES]: one training step (output, gradients of weights and input) of the
// convolutions of Graft's default head, by Graft and by LibTorch's oneDNN, interleaved.
#include <fmt/format.h>
#include <torch/torch.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include "base/threads.h"
#include "train/convolution.h"
#include "train/fused_optimizer.h"
#include "train/trainer.h"

namespace {

double seconds(bool graft, const torch::Tensor& x, const torch::Tensor& w, const torch::Tensor& b) {
  const auto start = std::chrono::steady_clock::now();
  const torch::Tensor y = graft ? graft::convolution(x, w, b) : torch::conv2d(x, w, b, 1, 1);
  y.backward(torch::ones_like(y));
  x.mutable_grad().reset();
  w.mutable_grad().reset();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

int main(int argc, char** argv) {
  const int images = argc > 1 ? std::stoi(argv[1]) : 64;
  graft::set_training_threads(argc > 2 ? std::stoi(argv[2]) : graft::available_processors());
  graft::keep_freed_memory();
  struct Size {
    int inputs, outputs, side;
  };
  for (const Size s : {Size{256, 128, 18}, Size{128, 256, 9}, Size{256, 256, 18}, Size{256, 256, 9},
                       Size{32, 32, 56}, Size{512, 512, 14}, Size{512, 512, 9}}) {
    const torch::Tensor x =
        torch::randn({images, s.inputs, s.side, s.side}).set_requires_grad(true);
    const torch::Tensor last =
        x.detach().contiguous(torch::MemoryFormat::ChannelsLast).set_requires_grad(true);
    const torch::Tensor w = torch::randn({s.outputs, s.inputs, 3, 3}).set_requires_grad(true);
    const torch::Tensor b = torch::zeros({s.outputs});
    std::vector<double> own, other;
    for (int i = 0; i < 6; ++i) {
      own.push_back(seconds(true, last, w, b));
      other.push_back(seconds(false, x, w, b));
    }
    std::sort(own.begin() + 1, own.end());  // the first warms up
    std::sort(other.begin() + 1, other.end());
    const double flops = 6.0 * 9 * s.inputs * s.outputs * s.side * s.side * images;
    fmt::print(
        "{:3} -> {:3} channels, {:2}x{:2}: {:6.1f} ms, LibTorch {:6.1f} ms; ratio {:.2f}; "
        "as direct convolution {:.0f} GFLOP/s, LibTorch {:.0f}\n",
        s.inputs, s.outputs, s.side, s.side, own[3] * 1e3, other[3] * 1e3, own[3] / other[3],
        flops / own[3] / 1e9, flops / other[3] / 1e9);
  }
  return 0;
}
