// The kinds of result files; see graft/results.h.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "graft/results.h"

namespace graft {

/// Columns beside the path: "label", "probability", … "p:<class>".
std::vector<std::string> result_columns(const ResultOptions& options);

/// Rows and columns of a spreadsheet, by Excel's specification.
inline constexpr size_t kMostSheetRows = 1'048'576;
inline constexpr size_t kMostSheetColumns = 16'384;

std::unique_ptr<ResultFile> make_xlsx_results(const fs::path& file, ResultOptions options);

}  // namespace graft
