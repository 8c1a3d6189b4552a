#include "base/csv.h"

#include <algorithm>
#include <utility>

#include "base/fail.h"

namespace graft {

std::vector<CsvRow> parse_csv(std::string_view text, std::string_view name, char separator) {
  if (text.substr(0, 3) == "\xEF\xBB\xBF") text.remove_prefix(3);
  if (const size_t at = text.find('\0'); at != std::string_view::npos)
    fail(ErrorKind::input, "{}:{}: a NUL byte; expected text in UTF-8", name,
         1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(at), '\n'));
  std::vector<CsvRow> rows;
  CsvRow row{1, {}};
  std::string field;
  bool quoted = false;
  bool any = false;  // the current row has something in it
  size_t line = 1;
  const auto end_row = [&] {
    if (any) {
      row.fields.push_back(std::exchange(field, {}));
      rows.push_back(std::move(row));
    }
    row = {line + 1, {}};
    any = false;
  };
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\n' && !quoted) {
      end_row();
      ++line;
      continue;
    }
    if (c == '\n') ++line;
    if (quoted) {
      if (c != '"') {
        field += c;
      } else if (i + 1 < text.size() && text[i + 1] == '"') {
        field += '"';
        ++i;
      } else {
        quoted = false;
      }
    } else if (c == '"') {
      quoted = any = true;
    } else if (c == separator) {
      row.fields.push_back(std::exchange(field, {}));
      any = true;
    } else if (c != '\r') {
      field += c;
      any = true;
    }
  }
  if (quoted) fail(ErrorKind::input, "{}:{}: a quoted field never ends", name, row.line);
  end_row();
  return rows;
}

std::string csv_field(std::string_view text) {
  if (text.find_first_of(",\"\r\n") == std::string_view::npos) return std::string(text);
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"') out += '"';
    out += c;
  }
  return out + '"';
}

bool is_formula(std::string_view text) {
  return !text.empty() && std::string_view("=+-@\t\r\n").find(text[0]) != std::string_view::npos;
}

}  // namespace graft
