// What other programs call an option, for suggestions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace graft {

/// As did_you_mean; what other programs call one of the known options counts as that option. Names
/// come with or without their dashes, all alike.
std::string did_you_mean_option(std::string_view typed, const std::vector<std::string>& known);

}  // namespace graft
