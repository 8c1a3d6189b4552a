// Values of a configuration file as text, both ways.
#pragma once

#include <string>

namespace graft::cli {

/// A TOML string with that content, which must be UTF-8.
std::string toml_quoted(const std::string& text);

/// A path's bytes as a TOML string. TOML is UTF-8 and paths need not be: one that is not stands as
/// a file URI with percent-encoded bytes (RFC 8089), "file:///photos/caf%E9".
std::string toml_path(const std::string& path);

/// The path that a value from a TOML file means: of a file URI the path's bytes, else the value.
std::string path_of_value(const std::string& value);

}  // namespace graft::cli
