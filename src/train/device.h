// LibTorch's devices, as the rest of the library knows them.
#pragma once

#include <torch/torch.h>

#include <memory>
#include <mutex>
#include <string>

#include "engine/executor.h"

namespace graft {

/// A GPU, or the processor by LibTorch.
class TorchDevice final : public ComputeDevice {
 public:
  explicit TorchDevice(torch::Device device) : device_(device) {}

  [[nodiscard]] std::string name() const override;
  [[nodiscard]] int batch() const override;
  /// Beside LibTorch's version a hash of what the device makes of a small convolution: GPUs and
  /// their libraries round differently.
  [[nodiscard]] std::string numerics(Precision precision) const override;
  [[nodiscard]] std::unique_ptr<engine::Executor> executor(
      const Network& network, size_t begin, size_t end, const TensorMap& tensors,
      const engine::EngineOptions& options) const override;
  [[nodiscard]] torch::Device device() const { return device_; }

 private:
  torch::Device device_;
  mutable std::mutex mutex_;       // guards what follows
  mutable std::string probed_[2];  // numerics() of fp32 and bf16; empty: not yet asked for
};

/// Where LibTorch is to keep tensors that train; null: on the processor.
torch::Device torch_device(const ComputeDevice* device);

/// What LibTorch says, without the places in its sources.
std::string first_line(const c10::Error& error);

/// Throws the Error that LibTorch's stands for: Error(memory) where the device has no more.
[[noreturn]] void fail_on(const torch::Device& device, const c10::Error& error);

}  // namespace graft
