#include "serve/access.h"

#include <arpa/inet.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>

#include "base/words.h"
#include "serve/text.h"

namespace graft::serving {
namespace {

/// "name", "1.2.3.4" or "[::1]" of a Host header, without the port; empty where it is malformed.
std::string host_name(const std::string& host) {
  const size_t end = host.starts_with('[') ? host.find(']') : host.find(':');
  std::string_view name(host);
  std::string_view port;
  if (host.starts_with('[')) {
    if (end == std::string::npos) return "";
    name = name.substr(0, end + 1);
    port = std::string_view(host).substr(end + 1);
  } else if (end != std::string::npos) {
    name = name.substr(0, end);
    port = std::string_view(host).substr(end);
  }
  const bool right = port.empty() || (port.size() > 1 && port.size() <= 6 && port[0] == ':' &&
                                      port.find_first_not_of("0123456789", 1) == port.npos);
  if (!right) return "";
  std::string out = lower(name);
  if (out.ends_with('.')) out.pop_back();
  return out;
}

bool is_address(const std::string& name) {
  std::array<unsigned char, 16> out{};
  if (name.starts_with('[') && name.ends_with(']'))
    return ::inet_pton(AF_INET6, name.substr(1, name.size() - 2).c_str(), out.data()) == 1;
  return ::inet_pton(AF_INET, name.c_str(), out.data()) == 1;
}

using Digest = std::array<unsigned char, EVP_MAX_MD_SIZE>;

Digest digest(std::string_view text) {
  Digest out{};
  EVP_Digest(text.data(), text.size(), out.data(), nullptr, EVP_sha256(), nullptr);
  return out;
}

}  // namespace

std::optional<std::string> bad_host(const Access& access, const HttpRequest& request) {
  const std::string* host = request.header("host");
  if (host == nullptr) return "no Host header";
  const std::string name = host_name(*host);
  if (name.empty()) return "no valid Host header";
  if (name == "localhost" || is_address(name)) return std::nullopt;
  for (const std::string& known : access.hosts)
    if (known == "*" || lower(known) == name) return std::nullopt;
  return "Host " + clipped(name) +
         " is not one of this server's names; start it with --allow-host NAME";
}

std::optional<std::string> bad_origin(const HttpRequest& request) {
  const std::string* origin = request.header("origin");
  if (origin == nullptr) return std::nullopt;
  const std::string* host = request.header("host");
  for (const std::string_view scheme : {"http://", "https://"})
    if (host != nullptr && lower(*origin) == std::string(scheme) + lower(*host))
      return std::nullopt;
  return "requests from pages of other sites are refused (Origin " + clipped(*origin) + ")";
}

bool has_token(const Access& access, const HttpRequest& request) {
  if (access.token.empty()) return true;
  const std::string* given = request.header("authorization");
  if (given == nullptr || given->size() < 7 || lower(given->substr(0, 7)) != "bearer ")
    return false;
  // Of digests, whose length says nothing of the token's.
  const Digest a = digest(std::string_view(*given).substr(7));
  const Digest b = digest(access.token);
  return CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace graft::serving
