// Several processes of one command on this machine: --workers N.
#pragma once

#include <filesystem>

namespace graft::cli {

inline constexpr int kMostWorkers = 1024;

/// Starts ranks 1 to `workers` − 1 of a group as `program` with these arguments, and gives this
/// process, which is to become that program too, the variables of rank 0. They end with it, however
/// it ends.
void start_workers(int workers, const std::filesystem::path& program, char** argv);

/// Whether this process is one of `workers` that start_workers() made.
bool is_worker_of(int workers);

/// The same for a command that becomes no other program: by fork alone, so before any thread is
/// started. Returns the rank; in this process 0. The others have no stderr: what goes wrong in all
/// of them is said once, and what goes wrong in one alone the first process meets or makes good.
int fork_workers(int workers);

}  // namespace graft::cli
