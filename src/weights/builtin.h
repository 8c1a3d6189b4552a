// Weights that travel inside the program.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

namespace graft {

/// The safetensors file that was compiled in for a backbone (data/<backbone>.safetensors), or
/// nothing. Valid for the whole run.
std::span<const std::byte> builtin_weights(std::string_view backbone);

}  // namespace graft
