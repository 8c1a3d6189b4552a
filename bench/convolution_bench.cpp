// convolution_bench [IMAGES [THREADS]]: one training step (output, gradients of weights and input)
// of the convolutions of Graft's default head and of VGG's last blocks, by Graft, by LibTorch's
// oneDNN and, where the processor has it, by Graft in bfloat16, interleaved.
#include <fmt/format.h>
#include <torch/torch.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include "base/threads.h"
#include "engine/tile_kernels.h"
#include "train/convolution.h"
#include "train/fused_optimizer.h"
#include "train/trainer.h"

namespace {

enum class By { graft, torch, bf16 };

double seconds(By by, const torch::Tensor& x, const torch::Tensor& w, const torch::Tensor& b) {
  const auto start = std::chrono::steady_clock::now();
  const torch::Tensor y =
      by == By::torch
          ? torch::conv2d(x, w, b, 1, 1)
          : graft::convolution(x, w, b,
                               by == By::bf16 ? graft::Precision::bf16 : graft::Precision::fp32);
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
  const graft::engine::TileKernels* tiles = graft::engine::tile_kernels(graft::Precision::bf16);
  const bool has_bf16 = tiles != nullptr;
  fmt::print("bf16 by {}\n", has_bf16 ? tiles->name : "none: this processor does not have it");
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
    std::vector<double> own, other, rounded;
    for (int i = 0; i < 6; ++i) {
      own.push_back(seconds(By::graft, last, w, b));
      other.push_back(seconds(By::torch, x, w, b));
      if (has_bf16) rounded.push_back(seconds(By::bf16, last, w, b));
    }
    for (std::vector<double>* times : {&own, &other, &rounded})
      if (!times->empty()) std::sort(times->begin() + 1, times->end());  // the first warms up
    const double flops = 6.0 * 9 * s.inputs * s.outputs * s.side * s.side * images;
    fmt::print(
        "{:3} -> {:3} channels, {:2}x{:2}: {:6.1f} ms, LibTorch {:6.1f} ms; ratio {:.2f}; "
        "as direct convolution {:.0f} GFLOP/s, LibTorch {:.0f}\n",
        s.inputs, s.outputs, s.side, s.side, own[3] * 1e3, other[3] * 1e3, own[3] / other[3],
        flops / own[3] / 1e9, flops / other[3] / 1e9);
    if (has_bf16)
      fmt::print("  bf16: {:6.1f} ms; ratio to float32 {:.2f}\n", rounded[3] * 1e3,
                 rounded[3] / own[3]);
  }
  return 0;
}
