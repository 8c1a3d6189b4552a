// How exactly a network's products are computed.
#pragma once

#pragma GCC visibility push(default)
namespace graft {

/// Of convolutions: of frozen layers, of layers that train, and of a finished model. Of layers that
/// train it is that of dense layers from 2^18 weights on, too, and of all three products: output,
/// gradients of input and weights; the weights that are kept are float32. Other dense layers,
/// pooling and normalisation are computed in float32 whatever is asked for.
enum class Precision {
  fp32,
  /// Activations and weights rounded to bfloat16 (8 bits of significand), products summed in
  /// float32: relative errors of about 1 % at VGG16's last pooling. Fast on processors with AMX;
  /// with AVX512_BF16 alone usually slower than fp32, whose convolutions take Winograd's way.
  bf16,
  automatic,  ///< bf16 on processors with AMX, else fp32
};

/// `precision`, or what this processor makes of `automatic`. Throws Error(usage) for bf16 on a
/// processor that has neither AMX nor AVX512_BF16. Of other devices: graft/device.h.
Precision resolve_precision(Precision precision);

}  // namespace graft
#pragma GCC visibility pop
