// One command in several processes that share out its images through a folder: started by torchrun,
// srun or mpirun, or by --workers.
#pragma once

#include <filesystem>
#include <string>

#include "cli/common.h"
#include "graft/group.h"

namespace graft::cli {

struct GroupOptions {
  int workers = 1;    ///< processes of this machine
  std::string parts;  ///< a folder for what each process makes
};

/// --workers and --parts. `beside`: where parts go if nothing is said.
void add_group_options(CLI::App& app, GroupOptions& options, const std::string& beside);

/// Throws Error(usage) for --workers with a device: processes that are forked would share one.
void require_no_workers_on(const std::string& device, const GroupOptions& options);

/// This process's place among those that do the command together. --workers starts the others
/// here, by fork: from then on this may be one of them. Their share of the threads goes into
/// `common`; all but rank 0 say nothing but errors.
GroupPlace join_group(const GroupOptions& options, CommonOptions& common);

/// The folder in which they get one of their own: --parts, else `beside`.
std::filesystem::path parts_folder(const GroupOptions& options,
                                   const std::filesystem::path& beside);

}  // namespace graft::cli
