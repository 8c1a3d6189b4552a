// Text for a person, on standard error.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <utility>

namespace graft {

/// Writes to standard error as it is. What cannot be written (a full disk, a reader that has gone,
/// a terminal that hung up) is dropped: a diagnostic never ends the work that it speaks of.
void write_diagnostic(std::string_view text) noexcept;

/// The text with control characters other than newline and tab replaced by '?'.
std::string without_controls(std::string text);

/// Formats and writes; control characters are replaced, since names from files may hold what
/// a terminal would obey.
void vprint_diagnostic(fmt::string_view format, fmt::format_args args) noexcept;

template <typename... Args>
void print_diagnostic(fmt::format_string<Args...> format, Args&&... args) noexcept {
  vprint_diagnostic(format, fmt::make_format_args(args...));
}

/// For main(), before anything is opened. Standard streams that the caller closed are opened on
/// /dev/null, so that no file of ours becomes standard output or error; standard output for reading
/// only, so that a result written there is still an error. Signals of writing to a closed pipe or
/// past a file-size limit are ignored: the write itself reports them.
void prepare_standard_streams();

}  // namespace graft
