// What computes layers of a network for batches of images. The engine is one, for the processor;
// `train` has another that hands them to LibTorch, for GPUs.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "graft/device.h"
#include "graft/network.h"
#include "graft/precision.h"
#include "weights/tensor.h"

namespace graft::engine {

class Team;
struct TileKernels;

struct EngineOptions {
  int threads = 0;  ///< 0: all that the process may use
  /// Images per step; larger batches are cut into such steps. More would fill the last blocks of
  /// small maps better, and take buffers in proportion.
  int max_batch = 16;
  int winograd_tile =
      0;  ///< forces a tile, for tests: see plan_convolution; 0 lets the plan choose
  /// A batch of one image has a plan of its own, faster but with other rounding. False: an image's
  /// result does not depend on the images beside it, nor on their number.
  bool single_plan = false;
  Precision precision = Precision::fp32;  ///< of convolutions
  const TileKernels* tiles = nullptr;     ///< for tests; null: the processor's, if it has any
  /// Threads to use in place of `threads` of its own; runs of engines with one team queue up.
  std::shared_ptr<Team> team = nullptr;
};

/// Bytes.
struct EngineMemory {
  uint64_t weights = 0;  ///< packed, shared by all executors of one set of weights
  uint64_t buffers = 0;  ///< activations and scratch, this executor's own
};

/// Runs layers [begin, end) of a network in inference mode: BatchNorm with its running statistics,
/// dropout as identity.
class Executor {
 public:
  Executor() = default;
  virtual ~Executor() = default;
  Executor(Executor&&) = default;
  Executor& operator=(Executor&&) = default;

  /// Floats of one image before layer `begin` and after layer `end` − 1.
  [[nodiscard]] virtual int64_t input_elements() const = 0;
  [[nodiscard]] virtual int64_t output_elements() const = 0;
  /// Images per step.
  [[nodiscard]] virtual int max_batch() const = 0;
  /// Calls of run() that are worth making at once, from as many threads: while one batch is
  /// computed on a device, the next is on its way there.
  [[nodiscard]] virtual int lanes() const { return 1; }

  /// About the memory of this machine that batches of `count` images will take, with the weights;
  /// builds nothing.
  [[nodiscard]] virtual uint64_t estimate(int count) const = 0;
  /// Memory that batches of `count` images take. Builds what is not built yet, so that the first
  /// run() does not have to.
  virtual EngineMemory prepare(int count) = 0;

  /// `in`: count × (C, H, W), `out`: count × (C, H, W) or count × (C), all float32. An image's
  /// result depends neither on the others nor on their number, but for EngineOptions::single_plan.
  /// Thread-safe.
  virtual void run(const float* in, int count, float* out) = 0;

  /// Another executor with the same weights.
  [[nodiscard]] virtual std::unique_ptr<Executor> beside(const EngineOptions& options) const = 0;
};

/// Layers [begin, end) on a device; null: in the engine. Keeps what it needs of `tensors`. Throws
/// Error(input) where a tensor is missing or misshapen.
std::unique_ptr<Executor> make_executor(const ComputeDevice* device, const Network& network,
                                        size_t begin, size_t end, const TensorMap& tensors,
                                        const EngineOptions& options);

/// What decides results to the bit beside network and weights.
std::string numerics(const ComputeDevice* device, Precision precision);

/// `wanted`, or as many images at once as the device needs to be busy.
int batch_for(const ComputeDevice* device, int wanted);

/// Whether it is one that open_device() has to open, whatever it finds: not "cpu" or "auto".
bool names_device(const std::string& name);
/// The N of "cuda:N"; −1 for other names.
int device_index(const std::string& name);

}  // namespace graft::engine

namespace graft {

/// Makes executors. Thread-safe.
class ComputeDevice {
 public:
  ComputeDevice() = default;
  virtual ~ComputeDevice() = default;
  ComputeDevice(const ComputeDevice&) = delete;
  ComputeDevice& operator=(const ComputeDevice&) = delete;

  /// As open_device() takes it, with its number.
  [[nodiscard]] virtual std::string name() const = 0;
  /// Images per step.
  [[nodiscard]] virtual int batch() const = 0;
  /// See engine::numerics(). Throws Error(usage) for a precision that the device does not have.
  [[nodiscard]] virtual std::string numerics(Precision precision) const = 0;
  /// See engine::make_executor(). May outlive the device.
  [[nodiscard]] virtual std::unique_ptr<engine::Executor> executor(
      const Network& network, size_t begin, size_t end, const TensorMap& tensors,
      const engine::EngineOptions& options) const = 0;
};

}  // namespace graft
