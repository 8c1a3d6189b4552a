// Throwing the library's exception with a formatted message.
#pragma once

#include <fmt/format.h>

#include <utility>

#include "graft/error.h"

namespace graft {

/// Throws an Error whose message is formatted with {fmt}.
template <typename... Args>
[[noreturn]] void fail(ErrorKind kind, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(kind, fmt::format(format, std::forward<Args>(args)...));
}

/// For functions that call back: throws Error(usage) unless all callbacks are there.
inline void require_callbacks(bool all) {
  if (!all) throw Error(ErrorKind::usage, "a callback is empty; pass one that does nothing");
}

}  // namespace graft
