// Texts that several parts of the server need.
#pragma once

#include <string>
#include <string_view>

namespace graft::serving {

/// With ASCII letters in lower case: names of hosts, headers and media types.
std::string lower(std::string_view text);

/// "2026-11-26T17:00:00Z".
std::string now_utc();

}  // namespace graft::serving
