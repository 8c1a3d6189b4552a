#include "graft/precision.h"

#include "base/fail.h"
#include "engine/kernels.h"
#include "engine/tile_kernels.h"

namespace graft {
namespace {

bool there_is_bf16() {
  return engine::amx_kernels() != nullptr || engine::avx512_bf16_kernels() != nullptr;
}

}  // namespace

Precision resolve_precision(Precision precision) {
  engine::kernels();  // throws where GRAFT_TARGET names nothing that there is
  if (precision == Precision::fp32) return precision;
  const engine::TileKernels* tiles = engine::tile_kernels(Precision::bf16);
  if (precision == Precision::automatic)
    return tiles != nullptr && tiles->fast ? Precision::bf16 : Precision::fp32;
  if (tiles == nullptr && !engine::rounds_operands())
    fail(ErrorKind::usage,
         "`precision` bf16 needs a processor with AMX or AVX512_BF16{}; say fp32, or auto: "
         "bf16 where the processor is fast at it",
         there_is_bf16() ? ", and GRAFT_TARGET leaves them unused" : "");
  return precision;
}

}  // namespace graft
