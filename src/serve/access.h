// Who may ask: which names the server goes by, which pages may call it, and the token.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "serve/http_server.h"

namespace graft::serving {

struct Access {
  /// Names that a Host header may have beside IP addresses and localhost; "*": any. Others are
  /// refused, so that no site can make a browser believe that this server is its own (DNS
  /// rebinding).
  std::vector<std::string> hosts;
  /// Only with "Authorization: Bearer TOKEN"; empty: without.
  std::string token;
};

/// Why a Host header is none of the server's; none where it is.
std::optional<std::string> bad_host(const Access& access, const HttpRequest& request);
/// Why a request that a page of another site makes is refused; none where it is this site's, or no
/// page's.
std::optional<std::string> bad_origin(const HttpRequest& request);
/// Whether the request bears the token, in a time that tells nothing of it.
bool has_token(const Access& access, const HttpRequest& request);

}  // namespace graft::serving
