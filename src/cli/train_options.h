// The options of `graft train`, read alike by the program that parses and the one that trains.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "cli/common.h"
#include "graft/group.h"
#include "graft/labels.h"
#include "graft/train.h"
#include "run/run_config.h"

namespace graft::cli {

struct TrainOptions {
  CommonOptions common;
  RunConfig config_of_run;
  std::string data;
  std::string output;
  int dashboard = 0;  ///< port on the loopback interface; 0: none
  bool find_lr = false;
  std::string recipe_name = "default";
  std::string config;
  std::string resume;          ///< a run folder to go on with
  std::string from;            ///< a run to begin a new one from
  EarlierCorrections earlier;  ///< that run's
  bool force = false;
  bool dry_run = false;
  bool json = false;
  int workers = 1;         ///< processes that train together on this machine
  std::string rendezvous;  ///< HOST:PORT of rank 0 of a group
  GroupPlace place;        ///< in a group that something else started, or --workers
  int status_fd = -1;      ///< for JSON lines of what is done; -1: none
};

/// Parses `graft train …` (argv[0] is "train"), puts recipe and configuration file beneath the
/// command line, and calls `run`. Returns the exit code.
int run_train_app(int argc, char** argv, const std::function<int(const TrainOptions&)>& run);

/// The folder that the options name, checked; with neither --output nor --resume a name under runs/
/// that nothing bears. Makes nothing.
std::filesystem::path run_folder(const TrainOptions& options);
std::filesystem::path new_run_folder(const TrainOptions& options);

/// The plan, where the run can go to its folder.
TrainPlan make_plan(const TrainOptions& options);

}  // namespace graft::cli
