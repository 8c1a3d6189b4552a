// CSV as RFC 4180 has it: quoted fields, doubled quotes, CRLF or LF.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace graft {

/// One row with the line it began on, for messages.
struct CsvRow {
  size_t line = 0;
  std::vector<std::string> fields;
};

/// Rows of a CSV text; empty lines are left out, a UTF-8 byte order mark is skipped. `name` is for
/// messages. Throws Error(input) for an unclosed quote.
std::vector<CsvRow> parse_csv(std::string_view text, std::string_view name, char separator = ',');

/// The field, quoted where it has to be.
std::string csv_field(std::string_view text);

/// Whether a spreadsheet would compute the field.
bool is_formula(std::string_view text);

}  // namespace graft
