#include "cli/plan_lines.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/file.h"
#include "cli/option_flags.h"
#include "cli/terminal.h"

namespace graft::cli {

PlanLines plan_lines(int stream, const TrainPlan& plan, const std::string& text,
                     const std::filesystem::path& folder) {
  constexpr size_t kBehindNames = 11;  // "backbone   vgg16 …": where what is said begins
  constexpr size_t kFigure = 10;       // columns of a figure in the table of classes
  size_t splits = 0;
  for (const Split split : {Split::unassigned, Split::train, Split::validation, Split::test})
    if (plan.dataset.has(split)) ++splits;
  PlanLines lines{
      table_for_stream(stream, class_table(plan.dataset), kFigure * splits),
      for_stream(stream, text, kBehindNames),
      {},
      for_stream(stream, fmt::format("run        {}\n", printable(folder)), kBehindNames)};
  for (const std::string& note : plan.dataset.notes)
    lines.notes += for_stream(stream, fmt::format("note: {}\n", with_flags(note)), 6);
  return lines;
}

}  // namespace graft::cli
