#include "cli/group_options.h"

#include <algorithm>
#include <memory>

#include "base/fail.h"
#include "cli/arguments.h"
#include "cli/numbers.h"
#include "cli/workers.h"

namespace graft::cli {

void add_group_options(CLI::App& app, GroupOptions& options, const std::string& beside) {
  const std::string group = "Several processes";
  app.add_option("--workers", options.workers,
                 "Processes of this machine that share out images and threads; torchrun, srun and "
                 "mpirun start them on several machines")
      ->check(whole_number(1, kMostWorkers))
      ->type_name("N")
      ->group(group);
  app.add_option("--parts", options.parts,
                 "A folder that all processes can write to, for what each makes, until it is "
                 "joined (default: " +
                     beside + ")")
      ->type_name("DIR")
      ->group(group);
}

void require_no_workers_on(const std::string& device, const GroupOptions& options) {
  if (options.workers > 1 && device != "cpu")
    fail(
        ErrorKind::usage,
        "--workers {}: shares out the processor, not --device {}; leave it out, or start processes "
        "with torchrun, srun or mpirun, each of which takes a GPU of its own",
        options.workers, device);
}

GroupPlace join_group(const GroupOptions& options, CommonOptions& common) {
  GroupPlace place = group_rank();
  if (options.workers > 1 && place.size > 1)
    fail(ErrorKind::usage,
         "--workers {}: this is process {} of {} already ({}); leave --workers out, or start graft "
         "alone",
         options.workers, place.rank, place.size, place.launcher);
  if (options.workers > 1) {
    place = {.rank = fork_workers(options.workers),
             .size = options.workers,
             .local_size = options.workers,
             .launcher = "--workers"};
    common.threads = std::max(1, common.thread_count() / options.workers);
  } else if (place.size > 1 && common.threads == 0) {
    common.threads = place.threads_of(common.thread_count());
  }
  if (place.rank > 0) {
    common.quiet = true;
    common.report_to(std::make_shared<Reporter>());
  }
  return place;
}

std::filesystem::path parts_folder(const GroupOptions& options,
                                   const std::filesystem::path& beside) {
  return options.parts.empty() ? beside : std::filesystem::path(options.parts);
}

}  // namespace graft::cli
