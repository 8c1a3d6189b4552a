// Files of options: lines of KEY = VALUE in TOML, keys as the options' names.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace graft::options {

/// One line of such a file.
struct OptionLine {
  std::string key;
  std::string value;  ///< as text, whatever its type was; of a path that is a file URI its bytes
  std::string place;  ///< "NAME:LINE", for messages
};

/// Throws Error(usage) for what is not TOML, for values that are tables, lists or empty, and for a
/// text that no options would fill. `name` stands for the file in messages.
std::vector<OptionLine> read_options(std::string_view text, std::string_view name);
/// Reads the file itself, of at most 256 kB.
std::vector<OptionLine> read_options_file(const std::filesystem::path& file);

/// A TOML string with that content, which must be UTF-8.
std::string toml_quoted(const std::string& text);

/// A path's bytes as a TOML string. TOML is UTF-8 and paths need not be: one that is not stands as
/// a file URI with percent-encoded bytes (RFC 8089), "file:///photos/caf%E9".
std::string toml_path(const std::string& path);

}  // namespace graft::options
