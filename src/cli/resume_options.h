// Which options a run that is resumed takes from the command line, and which are its own.
#pragma once

#include <string>
#include <vector>

#include "cli/train_options.h"

namespace graft::cli {

/// Throws Error(input) that names them where options on the command line ("lr", without dashes)
/// would change what the run has been made with. `own`: the run's options; `merged`: the same with
/// the command line over them.
void refuse_changed_options(const std::vector<std::string>& typed, const TrainOptions& own,
                            const TrainOptions& merged);

}  // namespace graft::cli
