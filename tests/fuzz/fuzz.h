// One fuzz target a source file: the bytes of an input go through one reader, which may refuse them
// with graft::Error and nothing else. Under libFuzzer (make fuzz) inputs are searched for; in the
// ordinary build replay.cpp runs the committed corpus and simple mutations of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "graft/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace graft::fuzz {

inline std::span<const std::byte> bytes(const uint8_t* data, size_t size) {
  return std::as_bytes(std::span(data, size));
}

inline std::string_view text(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

template <typename Body>
int expect_typed_errors(Body&& body) {
  try {
    body();
  } catch (const Error&) {
    // Refused, as hostile input should be.
  }
  return 0;
}

/// Ends the process where a property does not hold.
inline void require(bool holds) {
  if (!holds) __builtin_trap();
}

}  // namespace graft::fuzz
