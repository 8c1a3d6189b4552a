#include "dataset/table_file.h"

#include <algorithm>

#include "base/fail.h"
#include "base/file.h"
#include "dataset/labels.h"

namespace graft {
namespace {

/// Encodings that put a NUL into every letter, by their byte order mark or by those NULs.
void require_utf8_text(std::string_view text, const std::string& name, std::string_view expected) {
  using namespace std::string_view_literals;
  const char* encoding = nullptr;
  if (text.starts_with("\xFF\xFE\0\0"sv) || text.starts_with("\0\0\xFE\xFF"sv))
    encoding = "UTF-32";
  else if (text.starts_with("\xFF\xFE") || text.starts_with("\xFE\xFF"))
    encoding = "UTF-16";
  constexpr size_t kHead = 64;
  const std::string_view head = text.substr(0, kHead);
  const auto nuls = static_cast<size_t>(std::count(head.begin(), head.end(), '\0'));
  const bool letters = std::all_of(head.begin(), head.end(), [](char c) {
    return c == '\0' || c == '\r' || c == '\n' || c == '\t' || (c >= ' ' && c <= '~');
  });
  if (encoding == nullptr && letters && nuls * 3 > head.size())
    encoding = nuls * 3 > 2 * head.size() ? "UTF-32" : "UTF-16";
  if (text.starts_with("PK\x03\x04"))
    fail(ErrorKind::input,
         "{}: a spreadsheet (.xlsx, .ods) or another zip archive; save it as CSV; {}", name,
         expected);
  if (encoding != nullptr)
    fail(ErrorKind::input, "{}: the file is {} (as some spreadsheets save text); save it as UTF-8",
         name, encoding);
  if (const size_t at = text.find('\0'); at != std::string_view::npos)
    fail(ErrorKind::input, "{}:{}: a NUL byte: this is no text file; {}", name,
         1 + std::count(text.begin(), text.begin() + static_cast<long>(at), '\n'), expected);
}

/// Spreadsheets write "sep=,", people lines of remarks with '#', before the header: blanked, so
/// that lines keep their numbers.
void blank_preamble(std::string& text) {
  size_t at = 0;
  while (at < text.size()) {
    const size_t end = std::min(text.find_first_of("\r\n", at), text.size());
    const std::string_view line = std::string_view(text).substr(at, end - at);
    const bool separator = line.starts_with("sep=") && line.size() <= 6;
    if (!line.empty() && line[0] != '#' && !separator) return;
    text.erase(at, end - at);
    if (at < text.size()) ++at;  // past the end of the line, which stays
  }
}

}  // namespace

TableFile read_table_file(const std::filesystem::path& file, std::string_view what,
                          std::string_view expected, std::string_view separators) {
  const std::string name = printable(file);
  std::string text = read_text_file(file);
  if (text.starts_with("\xEF\xBB\xBF")) text.erase(0, 3);
  require_utf8_text(text, name, expected);
  if (text.find('\n') == std::string::npos)  // the ends of lines of old Macs
    std::replace(text.begin(), text.end(), '\r', '\n');
  blank_preamble(text);
  const size_t begin = text.find_first_not_of("\r\n");
  if (begin == std::string::npos) fail(ErrorKind::input, "{}: empty {}; {}", name, what, expected);
  TableFile out;
  out.first_line = text.substr(begin, text.find_first_of("\r\n", begin) - begin);
  const auto count = [&](char c) {
    return std::count(out.first_line.begin(), out.first_line.end(), c);
  };
  const char separator = *std::max_element(separators.begin(), separators.end(),
                                           [&](char a, char b) { return count(a) < count(b); });
  out.rows = parse_csv(text, name, separator);
  return out;
}

std::string_view trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

std::string column_name(std::string_view text) { return folded_label(trimmed(text)); }

std::string excerpt(std::string_view text) {
  constexpr size_t kShown = 80;
  return printable(std::string(text.substr(0, kShown))) + (text.size() > kShown ? "…" : "");
}

}  // namespace graft
