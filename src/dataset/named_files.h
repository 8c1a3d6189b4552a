// Many files by one name: patterns with braces, and lists.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace graft {

/// What "shard-{0000..0999}.tar" and "{a,b}.tar" stand for, as in a shell; the text itself where
/// there is no whole pair of braces in it. Throws Error(usage) for more than a million names.
std::vector<std::string> expand_braces(const std::string& text);

/// The files that a pattern with braces, a list ("@list.txt") or a text file of paths, one a line
/// and relative to its folder, stands for. Nothing for a path that is none of these, or that there
/// is a file or folder of. Throws Error(input) where a file of a pattern is missing, for an empty
/// list, and for one that is no text.
std::optional<std::vector<std::filesystem::path>> named_files(const std::filesystem::path& path);

}  // namespace graft
