#include "cli/toml_text.h"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <cctype>
#include <charconv>
#include <sstream>
#include <string_view>

namespace graft::cli {
namespace {

constexpr std::string_view kScheme = "file://";

/// Whether a TOML file can hold the text.
bool survives(const std::string& text) {
  try {
    const toml::table table = toml::parse("v = " + toml_quoted(text));
    return table["v"].value<std::string>() == text;
  } catch (const toml::parse_error&) {
    return false;
  }
}

}  // namespace

std::string toml_quoted(const std::string& text) {
  std::ostringstream out;
  out << toml::toml_formatter{toml::value<std::string>(text)};
  return out.str();
}

std::string toml_path(const std::string& path) {
  if (survives(path)) return toml_quoted(path);
  std::string uri(kScheme);
  for (const char c : path) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = byte < 0x80 && (std::isalnum(byte) != 0 ||
                                       std::string_view("/-._~").find(c) != std::string_view::npos);
    uri += plain ? std::string(1, c) : fmt::format("%{:02X}", byte);
  }
  return toml_quoted(uri);
}

std::string path_of_value(const std::string& value) {
  if (!value.starts_with(kScheme)) return value;
  std::string path;
  for (size_t i = kScheme.size(); i < value.size(); ++i) {
    unsigned byte = 0;
    const char* digits = value.data() + i + 1;
    if (value[i] == '%' && i + 2 < value.size() &&
        std::from_chars(digits, digits + 2, byte, 16).ptr == digits + 2) {
      path += static_cast<char>(byte);
      i += 2;
    } else {
      path += value[i];
    }
  }
  return path;
}

}  // namespace graft::cli
