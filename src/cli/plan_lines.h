// What a training run will do, as lines for a terminal or a pipe.
#pragma once

#include <filesystem>
#include <string>

#include "graft/train.h"

namespace graft::cli {

/// Whole lines, on a terminal no wider than it is where their words are not.
struct PlanLines {
  std::string classes;  ///< the table of classes
  std::string plan;
  std::string notes;
  std::string run;  ///< where it goes
};

/// `text`: the plan's, see plan_text(). `stream`: that the lines are for.
PlanLines plan_lines(int stream, const TrainPlan& plan, const std::string& text,
                     const std::filesystem::path& folder);

}  // namespace graft::cli
