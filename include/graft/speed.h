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

struct MachineLimits {
  int lanes = 0;         ///< floats of the widest vector that the processor has
  double flops_one = 0;  ///< FMA peak of one thread with such vectors, operations a second
  double flops_all = 0;  ///< of all threads together
  double bytes_all = 0;  ///< memory read bandwidth of all threads, bytes a second
};
/// Measures for about a second with `threads` threads.
MachineLimits measure_machine(int threads);
/// The instruction set that the engine uses here, the best that the processor has or the one that
/// the environment variable GRAFT_TARGET names: "avx512", "avx2", "sse4", "ssse3", "scalar" or
/// "neon".
std::string instruction_set();
/// What convolutions of a precision are computed by: that, or for bf16 "amx", "avx512_bf16" or
/// "emulated-amx". Throws as resolve_precision() does.
std::string convolution_target(Precision precision);

struct LayerTime {
  std::string layer;
  std::string how;     ///< the method that the plan chose
  double flops = 0;    ///< of one image by direct convolution; 0 for what does none
  double seconds = 0;  ///< of a batch; median
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
