// CSV files that people and spreadsheets write.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/csv.h"

namespace graft {

struct TableFile {
  std::vector<CsvRow> rows;  ///< at least one, the header
  std::string first_line;    ///< the header as it stands there
};

/// Reads one. A byte order mark, line ends of any system, and "sep=;" and lines of remarks before
/// the header are taken; of several `separators` the one that the header has most of. Throws
/// Error(input), which ends in `expected`, for what is no text in UTF-8; `what`: "manifest".
TableFile read_table_file(const std::filesystem::path& file, std::string_view what,
                          std::string_view expected, std::string_view separators);

/// Without spaces and tabs at its ends.
std::string_view trimmed(std::string_view text);

/// A column's name as it is compared.
std::string column_name(std::string_view text);

/// A text of the file for a message: printable, its first 80 bytes.
std::string excerpt(std::string_view text);

}  // namespace graft
