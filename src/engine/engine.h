// The CPU executor for any run of layers of a network, without LibTorch.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

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
  uint64_t weights = 0;  ///< packed, shared by all engines made by with_same_weights()
  uint64_t buffers = 0;  ///< activations and scratch, this engine's own
};

/// One step of a forward pass, for `graft bench`.
struct EngineStep {
  std::string layer;         ///< the layer that it computes; "" where it only moves data
  std::string how;           ///< "F(6x6) private 24x16", "first", "dense", …
  std::string instructions;  ///< "avx2", …, "amx": what it is computed with
  double flops = 0;          ///< of direct convolution, for one image
  double seconds = 0;        ///< of the last run(), all images together
};

/// Runs layers [begin, end) in inference mode: BatchNorm with its running statistics (folded into
/// the layer before where it can be), dropout as identity. Results depend on the network and the
/// instruction set, and with EngineOptions::single_plan on whether the batch is one image or more;
/// not on time, thread count or the other images.
/// run() may be called from several threads; calls queue up.
class Engine {
 public:
  /// Keeps what it needs of `tensors`. Throws Error(input) where a tensor is missing or misshapen.
  Engine(const Network& network, size_t begin, size_t end, const TensorMap& tensors,
         const EngineOptions& options = {});
  /// Another executor of the same layers, to run beside this one: weights are packed once for both,
  /// whichever is there longer, and only buffers (and threads) are its own.
  [[nodiscard]] Engine with_same_weights(const EngineOptions& options) const;
  ~Engine();
  Engine(Engine&&) noexcept;
  Engine& operator=(Engine&&) noexcept;

  /// Floats of one image before layer `begin` and after layer `end` − 1.
  [[nodiscard]] int64_t input_elements() const;
  [[nodiscard]] int64_t output_elements() const;
  [[nodiscard]] int max_batch() const;
  [[nodiscard]] int threads() const;

  /// About the memory that batches of `count` images will take, with the weights; builds nothing.
  [[nodiscard]] uint64_t estimate(int count) const;
  /// Memory that batches of `count` images take. Builds what is not built yet, so that the first
  /// run() does not have to.
  EngineMemory prepare(int count);
  /// The steps of the plan for batches of `count` images, with the times of the last run on it.
  [[nodiscard]] std::vector<EngineStep> steps(int count);
  /// "avx512", "avx2", "neon", …
  [[nodiscard]] static std::string instruction_set();
  /// What decides results to the bit beside network, weights and plan: the instruction set, but
  /// that AVX-512 gives what AVX2 gives; with bf16, the kind of tiles too.
  [[nodiscard]] static std::string numerics(Precision precision);

  /// `in`: count × (C, H, W), `out`: count × (C, H, W) or count × (C), all float32.
  void run(const float* in, int count, float* out);

 private:
  struct State;
  explicit Engine(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace graft::engine
