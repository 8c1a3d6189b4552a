// graft train: checks everything that can be checked, then becomes the program that trains.
//
// Training is a program of its own because LibTorch takes most of a second to load and drags in
// hundreds of libraries; exec (not fork) lets signals and exit codes pass through.
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/fail.h"
#include "base/file.h"
#include "base/limits.h"
#include "cli/commands.h"
#include "cli/plan_lines.h"
#include "cli/train_options.h"
#include "cli/training_program.h"
#include "cli/workers.h"

namespace graft::cli {

int run_train(int argc, char** argv) {
  return run_train_app(argc, argv, [&](const TrainOptions& options) {
    if (options.dry_run) {
      check_training_limits();
      TrainPlan plan = make_plan(options);
      check_weights(plan, options.common.context());
      const PlanLines lines = plan_lines(
          STDOUT_FILENO, plan, plan_text(plan, /*with_time=*/true, options.common.context()),
          run_folder(options));
      print_result("{}\n{}{}{}", lines.classes, lines.plan, lines.run, lines.notes);
      return 0;
    }
    check_training_limits();
    if (options.workers > 1 || options.place.size > 1) {
      // LibTorch, by glog or without it, of connections that fail: the error then says more.
      ::setenv("TORCH_CPP_LOG_LEVEL", "FATAL", 0);
      ::setenv("GLOG_minloglevel", "3", 0);
    }
    if (options.workers > 1) {
      prepare_training_program();
      start_workers(options.workers, companion_program("graft-train"), argv);
    }
    become_training_program(argv);
  });
}

}  // namespace graft::cli
