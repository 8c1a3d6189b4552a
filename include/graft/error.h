// The one exception type that Graft throws.
#pragma once

#if __cplusplus < 202002L
#error "Graft's headers are C++20: compile with -std=c++20"
#endif

#include <stdexcept>
#include <string>

#pragma GCC visibility push(default)
namespace graft {

/// What went wrong, which decides the program's exit code.
enum class ErrorKind {
  usage,        ///< the caller asked for something contradictory or unknown (exit code 2)
  input,        ///< a file or its content is not what it should be (exit code 1)
  io,           ///< reading or writing failed: permissions, full disk, network (exit code 1)
  memory,       ///< the job would not fit into memory (exit code 1)
  interrupted,  ///< the context's stop token, which programs tie to signals (exit code 128 +
                ///< signal)
};

/// An error that a user can act on: what() is one line (or a line and a table) that names the file
/// or option, says what was expected, and what to do.
class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  [[nodiscard]] ErrorKind kind() const noexcept { return kind_; }

 private:
  ErrorKind kind_;
};

}  // namespace graft
#pragma GCC visibility pop
