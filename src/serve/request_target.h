// The target of an HTTP request: path and query.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "serve/http_server.h"

namespace graft::serving {

struct RequestTarget {
  std::vector<std::string> path;  ///< parts, percent-decoded
  HttpFields query;               ///< decoded, '+' as a space
};

/// Reads "/a/b%20c?x=1&y=2", or the absolute form "http://host/…". False for what is neither, has
/// empty, "." or ".." parts, control characters, or a '%' without two hexadecimal digits.
bool parse_target(std::string_view text, RequestTarget& target);

}  // namespace graft::serving
