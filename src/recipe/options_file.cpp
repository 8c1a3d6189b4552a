#include "recipe/options_file.h"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <sstream>

#include "base/fail.h"
#include "base/file.h"
#include "base/words.h"

namespace graft::options {
namespace {

constexpr std::string_view kScheme = "file://";

// A file of options is some 40 lines of KEY = VALUE. What the parser takes apart by recursion, each
// dot of a dotted key, is held to a depth that any stack has room for.
constexpr uint64_t kMostBytes = 256 * 1024;
constexpr std::ptrdiff_t kMostDots = 4096;

/// Whether a TOML file can hold the text.
bool survives(const std::string& text) {
  try {
    const toml::table table = toml::parse("v = " + toml_quoted(text));
    return table["v"].value<std::string>() == text;
  } catch (const toml::parse_error&) {
    return false;
  }
}

/// The path that a value means: of a file URI the path's bytes, else the value.
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

std::string text_of(const toml::node& node, const std::string& place, const std::string& key) {
  if (const auto* text = node.as_string()) {
    if (text->get().find('\0') != std::string::npos)
      fail(ErrorKind::usage, "{}: '{}' holds a NUL character, which would cut it short", place,
           clipped(key));
    return path_of_value(text->get());
  }
  if (const auto* number = node.as_integer()) return std::to_string(number->get());
  if (const auto* number = node.as_floating_point()) return fmt::format("{}", number->get());
  if (const auto* flag = node.as_boolean()) return flag->get() ? "true" : "false";
  fail(ErrorKind::usage, "{}: '{}' must be a string, a number, true or false", place, clipped(key));
}

}  // namespace

std::vector<OptionLine> read_options(std::string_view text, std::string_view name) {
  if (std::count(text.begin(), text.end(), '.') > kMostDots)
    fail(ErrorKind::usage, "{}: over {} dots; expected lines of KEY = VALUE", name, kMostDots);
  std::vector<OptionLine> lines;
  try {
    const toml::table table = toml::parse(text);
    for (const auto& [key_view, node] : table) {
      const std::string key(key_view.str());
      const std::string place = fmt::format("{}:{}", name, node.source().begin.line);
      const std::string value = text_of(node, place, key);
      if (value.empty())
        fail(ErrorKind::usage, "{}: '{}' is empty; give a value, or leave the line out", place,
             clipped(key));
      lines.push_back({key, value, place});
    }
  } catch (const toml::parse_error& error) {
    fail(ErrorKind::usage,
         "{}:{}: not TOML: {}; expected KEY = VALUE, words in quotes: lr = 1e-3, optimizer = "
         "\"sgd\"",
         name, error.source().begin.line, clipped(error.description()));
  }
  return lines;
}

std::vector<OptionLine> read_options_file(const std::filesystem::path& file) {
  std::error_code error;
  if (const auto size = fs::file_size(file, error); !error && size > kMostBytes)
    fail(ErrorKind::usage, "{}: {} bytes; a file of options has at most {}", printable(file), size,
         kMostBytes);
  return read_options(read_text_file(file), printable(file));
}

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

}  // namespace graft::options
