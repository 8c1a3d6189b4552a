#include "weights/builtin.h"

// The assembler copies the file; the compiler never sees its megabytes.
asm(R"(
  .section .rodata
  .balign 64
graft_vgg_mini_begin:
  .incbin ")" GRAFT_DATA R"(/vgg-mini.safetensors"
graft_vgg_mini_end:
  .byte 0
  .previous
)");

extern "C" {
// NOLINTNEXTLINE(readability-identifier-naming): the assembler's labels
extern const std::byte graft_vgg_mini_begin[], graft_vgg_mini_end[];
}

namespace graft {

std::span<const std::byte> builtin_weights(std::string_view backbone) {
  if (backbone == "vgg-mini") return {graft_vgg_mini_begin, graft_vgg_mini_end};
  return {};
}

}  // namespace graft
