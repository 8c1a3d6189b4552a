#include "train/device.h"

#include <ATen/detail/CUDAHooksInterface.h>
#include <torch/version.h>

#include <algorithm>
#include <span>
#include <string_view>

#include "base/fail.h"
#include "base/hash.h"
#include "engine/engine.h"
#include "train/torch_executor.h"

namespace graft {
namespace {

// Images per step, always so many, since cuDNN's choice of kernel, and with it the rounding,
// depends on their number. On a GPU enough to fill it at VGG's deepest maps (32 × 14 × 14 rows of a
// product); on the processor the engine's own number.
constexpr int kRowsOnGpu = 32;
constexpr int kRowsOnProcessor = 16;

// Raised when results change by more than rounding.
constexpr int kRevision = 1;

int gpus() { return static_cast<int>(torch::cuda::device_count()); }

/// Once a process uses a GPU: float32 is float32, and the same run gives the same bits. TF32 has 10
/// bits of significand; a benchmark's choice of kernels is chance.
void settle_arithmetic() {
  at::Context& context = at::globalContext();
  context.setAllowTF32CuDNN(false);
  context.setAllowTF32CuBLAS(false);
  context.setBenchmarkCuDNN(false);
  context.setDeterministicCuDNN(true);
}

std::shared_ptr<const ComputeDevice> open_gpu(int index) {
  settle_arithmetic();
  const torch::Device device(torch::kCUDA, static_cast<c10::DeviceIndex>(index));
  try {
    // A GPU that is listed may be broken, forbidden or in another's use.
    torch::zeros({1}, torch::TensorOptions(device)).cpu();
  } catch (const c10::Error& error) {
    fail_on(device, error);
  }
  return std::make_shared<TorchDevice>(device);
}

}  // namespace

std::shared_ptr<const ComputeDevice> open_device(const std::string& name, int place) {
  check_device(name);
  if (name == "cpu") return nullptr;
  if (name == "torch-cpu") return std::make_shared<TorchDevice>(torch::Device(torch::kCPU));
  const int count = torch::cuda::is_available() ? gpus() : 0;
  if (count == 0) {
    if (name == "auto") return nullptr;
    fail(ErrorKind::input,
         "`device {}`: this LibTorch (" TORCH_VERSION
         ") has no CUDA, or this machine no GPU that it can use; take `device cpu`, or a LibTorch "
         "with CUDA (docs/gpu.md)",
         name);
  }
  const int index = engine::device_index(name);
  if (index >= count)
    fail(ErrorKind::input, "`device {}`: LibTorch sees {} here; their numbers begin with 0", name,
         count == 1 ? "1 GPU" : fmt::format("{} GPUs", count));
  return open_gpu(index >= 0 ? index : place % count);
}

std::string TorchDevice::name() const {
  return device_.is_cpu() ? "torch-cpu" : fmt::format("cuda:{}", static_cast<int>(device_.index()));
}

int TorchDevice::batch() const { return device_.is_cpu() ? kRowsOnProcessor : kRowsOnGpu; }

std::string TorchDevice::numerics(Precision precision) const {
  const bool rounded = precision == Precision::bf16;
  const std::lock_guard lock(mutex_);
  std::string& known = probed_[rounded ? 1 : 0];
  if (!known.empty()) return known;
  const std::vector<float> probe = probe_device(device_, precision, batch());
  known = fmt::format("libtorch {} {} {} cudnn {} rows {} revision {} {} {}", TORCH_VERSION,
                      device_.is_cpu() ? engine::Engine::instruction_set() : "cuda",
                      rounded ? "bf16" : "fp32",
                      device_.is_cpu() ? 0 : at::detail::getCUDAHooks().versionCuDNN(), batch(),
                      kRevision, at::detail::getCUDAHooks().hasROCM() ? "rocm" : "",
                      content_hash(std::as_bytes(std::span(probe))));
  return known;
}

std::unique_ptr<engine::Executor> TorchDevice::executor(
    const Network& network, size_t begin, size_t end, const TensorMap& tensors,
    const engine::EngineOptions& options) const {
  return make_torch_executor(device_, batch(), network, begin, end, tensors, options);
}

torch::Device torch_device(const ComputeDevice* device) {
  // There is no other kind.
  return device != nullptr ? dynamic_cast<const TorchDevice&>(*device).device()
                           : torch::Device(torch::kCPU);
}

std::string first_line(const c10::Error& error) {
  const std::string text = error.what_without_backtrace();
  return text.substr(0, text.find('\n'));
}

void fail_on(const torch::Device& device, const c10::Error& error) {
  const std::string first = first_line(error);
  const std::string name = device.is_cpu() ? std::string("torch-cpu") : device.str();
  // LibTorch's allocator for the processor has no type of its own for it.
  if (dynamic_cast<const c10::OutOfMemoryError*>(&error) != nullptr ||
      first.find("out of memory") != std::string::npos ||
      first.find("allocate memory") != std::string::npos)
    fail(ErrorKind::memory,
         "device {}: out of memory: {}; use a smaller input size, or another device", name, first);
  fail(ErrorKind::io, "device {}: LibTorch: {}; try again, or `device cpu`", name, first);
}

}  // namespace graft
