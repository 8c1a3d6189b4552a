#include "serve/request_target.h"

#include <cctype>
#include <optional>

namespace graft::serving {
namespace {

int digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  const char low = static_cast<char>(c | 0x20);
  return low >= 'a' && low <= 'f' ? low - 'a' + 10 : -1;
}

std::optional<std::string> decode(std::string_view text, bool plus_is_space) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '%') {
      if (text.size() - i < 3) return std::nullopt;
      const int high = digit(text[i + 1]);
      const int low = digit(text[i + 2]);
      if (high < 0 || low < 0) return std::nullopt;
      c = static_cast<char>(high * 16 + low);
      i += 2;
    } else if (c == '+' && plus_is_space) {
      c = ' ';
    }
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) return std::nullopt;
    out += c;
  }
  return out;
}

std::string_view up_to(std::string_view& rest, char end) {
  const size_t at = rest.find(end);
  const std::string_view part = rest.substr(0, at);
  rest = at == std::string_view::npos ? std::string_view() : rest.substr(at + 1);
  return part;
}

bool parse_path(std::string_view text, std::vector<std::string>& parts) {
  if (text.empty() || text.front() != '/') return false;
  text.remove_prefix(1);
  if (!text.empty() && text.back() == '/') text.remove_suffix(1);
  while (!text.empty()) {
    const std::optional<std::string> part = decode(up_to(text, '/'), false);
    if (!part || part->empty() || *part == "." || *part == "..") return false;
    parts.push_back(*part);
  }
  return true;
}

}  // namespace

bool parse_target(std::string_view text, RequestTarget& target) {
  for (const std::string_view scheme : {"http://", "https://"})
    if (text.starts_with(scheme)) {
      const size_t slash = text.find('/', scheme.size());
      text = slash == std::string_view::npos ? "/" : text.substr(slash);
    }
  std::string_view query = text;
  const std::string_view path = up_to(query, '?');
  if (path.find('#') != std::string_view::npos || !parse_path(path, target.path)) return false;
  while (!query.empty()) {
    std::string_view value = up_to(query, '&');
    if (value.empty()) continue;
    const std::optional<std::string> name = decode(up_to(value, '='), true);
    const std::optional<std::string> decoded = decode(value, true);
    if (!name || !decoded) return false;
    target.query.emplace_back(*name, *decoded);
  }
  return true;
}

}  // namespace graft::serving
