// The CPU executor for any run of layers of a network, without LibTorch.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/executor.h"

namespace graft::engine {

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
class Engine final : public Executor {
 public:
  /// Keeps what it needs of `tensors`. Throws Error(input) where a tensor is missing or misshapen.
  Engine(const Network& network, size_t begin, size_t end, const TensorMap& tensors,
         const EngineOptions& options = {});
  /// Another executor of the same layers, to run beside this one: weights are packed once for both,
  /// whichever is there longer, and only buffers (and threads) are its own.
  [[nodiscard]] Engine with_same_weights(const EngineOptions& options) const;
  ~Engine() override;
  Engine(Engine&&) noexcept;
  Engine& operator=(Engine&&) noexcept;

  [[nodiscard]] int64_t input_elements() const override;
  [[nodiscard]] int64_t output_elements() const override;
  [[nodiscard]] int max_batch() const override;
  [[nodiscard]] int threads() const;

  [[nodiscard]] uint64_t estimate(int count) const override;
  EngineMemory prepare(int count) override;
  /// The steps of the plan for batches of `count` images, with the times of the last run on it.
  [[nodiscard]] std::vector<EngineStep> steps(int count);
  /// "avx512", "avx2", "neon", …
  [[nodiscard]] static std::string instruction_set();
  /// What decides results to the bit beside network, weights and plan: the instruction set, but
  /// that AVX-512 gives what AVX2 gives; with bf16, the kind of tiles too.
  [[nodiscard]] static std::string numerics(Precision precision);

  /// Calls from several threads queue up.
  void run(const float* in, int count, float* out) override;
  [[nodiscard]] std::unique_ptr<Executor> beside(const EngineOptions& options) const override;

 private:
  struct State;
  explicit Engine(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace graft::engine
