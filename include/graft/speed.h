// How fast this machine is, and how near the engine comes to its limits.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "graft/context.h"
#include "graft/precision.h"

#pragma GCC visibility push(default)
namespace graft {

/// What one kind of instruction can do, measured by a loop of independent multiply-adds in
/// registers.
struct Peak {
  std::string instructions;               ///< "avx2", "avx512", "avx512_bf16", "amx", …
  Precision precision = Precision::fp32;  ///< of the factors; sums are float32
  int lanes = 0;                          ///< factors of a vector; with AMX, sums of a tile
  double flops_one = 0;  ///< of one thread, operations a second (a multiply-add is two)
  double flops_all = 0;  ///< of all threads together
};
struct MachineLimits {
  std::vector<Peak> peaks;  ///< of each instruction set that the processor has
  double bytes_all = 0;     ///< memory read bandwidth of all threads, bytes a second

  /// That of some instructions; null where the processor does not have them.
  [[nodiscard]] const Peak* peak(std::string_view instructions) const;
};
/// Measures for some seconds with `threads` threads. Not to be called beside anything else of the
/// library: it tries one instruction set after the other.
MachineLimits measure_machine(int threads);
/// The instruction set that the engine uses here, the best that the processor has or the one that
/// the environment variable GRAFT_TARGET names: "avx512", "avx2", "sse4", "ssse3", "scalar" or
/// "neon".
std::string instruction_set();
/// What convolutions of a precision are computed by: that, or "amx", "amx-fp16", "avx512_bf16",
/// "emulated-amx", "emulated-amx-fp16" or "rounded-bf16". Throws as resolve_precision() does.
std::string convolution_target(Precision precision);

struct LayerTime {
  std::string layer;
  std::string how;           ///< the method that the plan chose
  std::string instructions;  ///< as Peak has them
  double flops = 0;          ///< of one image by direct convolution; 0 for what does none
  double seconds = 0;        ///< of a batch; median
};
struct NetworkTime {
  uint64_t memory = 0;  ///< bytes of packed weights and buffers
  std::vector<LayerTime> layers;
  double seconds = 0;  ///< of a batch, all layers together; median
};
/// Times a backbone with random weights on random images of size × size pixels, in the plan of
/// least time. Throws Error(usage) for bf16 on a processor without it.
NetworkTime measure_network(std::string_view backbone, int size, int batch, int repeats,
                            const RunContext& context = {}, Precision precision = Precision::fp32);

/// Seconds from a model file to the first logits, in its parts.
struct LoadTime {
  double read = 0;  ///< and checked
  double pack = 0;  ///< weights into the engine's layout
  double run = 0;
};
LoadTime measure_model(const std::filesystem::path& model, const RunContext& context = {},
                       Precision precision = Precision::fp32);

}  // namespace graft
#pragma GCC visibility pop
