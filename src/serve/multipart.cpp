#include "serve/multipart.h"

#include "base/fail.h"
#include "serve/text.h"

namespace graft::serving {
namespace {

constexpr size_t kMostBoundary = 70;  // RFC 2046
constexpr size_t kMostPartHeaders = size_t{8} << 10U;

bool same_word(std::string_view a, std::string_view b) { return lower(a) == lower(b); }

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

/// The value of a parameter behind a header's first word: name="a \"b\".jpg", or a bare word.
std::optional<std::string> parameter(std::string_view header, std::string_view wanted) {
  size_t at = header.find(';');
  while (at != std::string_view::npos) {
    const size_t equals = header.find('=', at + 1);
    if (equals == std::string_view::npos) return std::nullopt;
    const std::string_view name = trimmed(header.substr(at + 1, equals - at - 1));
    std::string value;
    size_t i = equals + 1;
    if (i < header.size() && header[i] == '"') {
      for (++i; i < header.size() && header[i] != '"'; ++i) {
        if (header[i] == '\\' && i + 1 < header.size() &&
            (header[i + 1] == '"' || header[i + 1] == '\\'))
          ++i;
        value += header[i];
      }
      if (i == header.size()) return std::nullopt;
      at = header.find(';', i);
    } else {
      at = header.find(';', i);
      value = trimmed(header.substr(i, at == std::string_view::npos ? at : at - i));
    }
    if (same_word(name, wanted)) return value;
  }
  return std::nullopt;
}

/// The value of a part's header.
std::optional<std::string_view> header(std::string_view headers, std::string_view wanted) {
  while (!headers.empty()) {
    const size_t end = headers.find("\r\n");
    const std::string_view line = headers.substr(0, end);
    headers = end == std::string_view::npos ? std::string_view() : headers.substr(end + 2);
    const size_t colon = line.find(':');
    if (colon != std::string_view::npos && same_word(trimmed(line.substr(0, colon)), wanted))
      return trimmed(line.substr(colon + 1));
  }
  return std::nullopt;
}

[[noreturn]] void refuse(std::string_view why) {
  fail(ErrorKind::input, "no valid multipart/form-data: {}", why);
}

}  // namespace

std::optional<std::string> form_boundary(std::string_view content_type) {
  const std::string_view kind = trimmed(content_type.substr(0, content_type.find(';')));
  if (!same_word(kind, "multipart/form-data")) return std::nullopt;
  std::optional<std::string> boundary = parameter(content_type, "boundary");
  if (!boundary || boundary->empty() || boundary->size() > kMostBoundary) return std::nullopt;
  return boundary;
}

std::vector<FormPart> parse_form(std::string_view body, std::string_view boundary, size_t most) {
  const std::string first = "--" + std::string(boundary);
  const std::string between = "\r\n" + first;
  std::vector<FormPart> parts;
  // What stands before the first boundary counts for nothing.
  size_t at = body.starts_with(first) ? first.size() : body.find(between);
  if (at == std::string_view::npos) refuse("the boundary that Content-Type names is not in it");
  if (!body.starts_with(first)) at += between.size();
  while (true) {
    std::string_view rest = body.substr(at);
    if (rest.starts_with("--")) break;
    const size_t line = rest.find_first_not_of(" \t");
    if (line == std::string_view::npos || !rest.substr(line).starts_with("\r\n"))
      refuse("a boundary without an end of line");
    rest.remove_prefix(line + 2);
    // A part may have no headers at all.
    const size_t end =
        rest.starts_with("\r\n") ? 0 : rest.substr(0, kMostPartHeaders).find("\r\n\r\n");
    if (end == std::string_view::npos) refuse("the headers of a part do not end");
    const std::string_view headers = rest.substr(0, end);
    rest.remove_prefix(end == 0 ? 2 : end + 4);
    const size_t length = rest.find(between);
    if (length == std::string_view::npos) refuse("its last part does not end");
    if (parts.size() == most) refuse(fmt::format("more than {} parts", most));
    const std::string_view about = header(headers, "content-disposition").value_or("");
    parts.push_back({parameter(about, "name").value_or(""), parameter(about, "filename"),
                     rest.substr(0, length)});
    at = static_cast<size_t>(rest.data() - body.data()) + length + between.size();
  }
  if (parts.empty()) refuse("it has no parts");
  return parts;
}

}  // namespace graft::serving
