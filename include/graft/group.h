// Working as one process of a group, on one machine or on several: graft::train() with a Group,
// write_features_in_group() (graft/features.h) and evaluate_in_group() (graft/evaluate.h) with a
// GroupPlace alone.
//
//   const graft::GroupPlace place = graft::group_place();
//   return graft::run_in_group(place, context, [&](graft::Group* group) {
//     graft::train(plan, folder, {.group = group}, context);
//     return 0;
//   });
//
// Processes are started by torchrun, srun, mpirun, a Kubernetes PyTorchJob or `graft train
// --workers`; docs/scaling-training.md has an example of each.
#pragma once

#include <functional>
#include <string>

#include "graft/context.h"

#pragma GCC visibility push(default)
namespace graft {

/// This process's place in a group.
struct GroupPlace {
  int rank = 0;
  int size = 1;          ///< 1: it is alone
  int local_size = 1;    ///< processes on this machine
  int local_rank = 0;    ///< its number among those, which says which GPU is its own
  bool bound = false;    ///< what started them gives processors of its own to each process
  std::string host;      ///< where rank 0 is to be found
  int port = 0;          ///< on which rank 0 listens
  std::string launcher;  ///< whose variables say so, for messages: "torchrun"

  /// Of the processors that this process may use, its share.
  [[nodiscard]] int threads_of(int processors) const;
};

/// The place that environment variables give: torchrun's (RANK, WORLD_SIZE, MASTER_ADDR,
/// MASTER_PORT), Open MPI's or Slurm's, the first of them that is there. `rendezvous`: HOST:PORT of
/// rank 0; empty: from the environment. Throws Error(usage) for variables that contradict each
/// other, or of which some are missing.
GroupPlace group_place(const std::string& rendezvous = {});

/// The same for work that processes share out through a folder, with no network between them: where
/// rank 0 is to be found may be unknown.
GroupPlace group_rank();

/// The processes that train together. Its members are the library's own.
class Group;

/// Joins the other processes, calls `work` and leaves. An error of one of them, or its death, ends
/// all, and is thrown in rank 0; in the others 1 is returned, or it is thrown there too where rank
/// 0 cannot say it. Of a group of one, `work` gets null and nothing else happens. After an error
/// threads of the group may still be running: end the process with _exit().
int run_in_group(const GroupPlace& place, const RunContext& context,
                 const std::function<int(Group*)>& work);

}  // namespace graft
#pragma GCC visibility pop
