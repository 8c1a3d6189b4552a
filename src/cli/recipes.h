// The recipes that ship inside the program: recipes/*.toml, embedded at build time.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace graft::cli {

std::vector<std::string> recipe_names();

/// The TOML text. Throws Error(usage) that lists the names.
std::string recipe_text(std::string_view name);

}  // namespace graft::cli
