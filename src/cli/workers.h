// Several processes of one training on this machine: `graft train --workers N`.
#pragma once

#include <filesystem>

namespace graft::cli {

/// Starts ranks 1 to `workers` − 1 of a group as `program` with these arguments, and gives this
/// process, which is to become that program too, the variables of rank 0. They end with it, however
/// it ends.
void start_workers(int workers, const std::filesystem::path& program, char** argv);

/// Whether this process is one of `workers` that start_workers() made.
bool is_worker_of(int workers);

}  // namespace graft::cli
