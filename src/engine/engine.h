// The CPU executor for any run of layers of a network, without LibTorch.
#pragma once

#include <cstdint>
#include <memory>

#include "graft/network.h"
#include "weights/tensor.h"

namespace graft {

struct EngineOptions {
  int threads = 0;     ///< 0: all that the process may use
  int max_batch = 16;  ///< images per step; larger batches are cut into such steps
};

/// Runs layers [begin, end) in inference mode: BatchNorm with its running statistics (folded into
/// the layer before where it can be), dropout as identity. Results depend on the network, the
/// instruction set and whether the batch is one image or more, not on time or thread count.
/// run() may be called from several threads; calls queue up.
class Engine {
 public:
  /// Keeps what it needs of `tensors`. Throws Error(input) where a tensor is missing or misshapen.
  Engine(const Network& network, size_t begin, size_t end, const TensorMap& tensors,
         const EngineOptions& options = {});
  ~Engine();
  Engine(Engine&&) noexcept;
  Engine& operator=(Engine&&) noexcept;

  /// Floats of one image before layer `begin` and after layer `end` − 1.
  [[nodiscard]] int64_t input_elements() const;
  [[nodiscard]] int64_t output_elements() const;
  [[nodiscard]] int max_batch() const;

  /// `in`: count × (C, H, W), `out`: count × (C, H, W) or count × (C), all float32.
  void run(const float* in, int count, float* out);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace graft
