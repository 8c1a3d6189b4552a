// Starting the programs that read files for Graft in processes of their own (decision 0013).
#pragma once

#include <sys/types.h>

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graft/error.h"

namespace graft {

struct HelperProgram {
  std::string_view name;  ///< of its file, below libexec/graft
  std::string_view task;  ///< "reads .h5 files", for messages
};

/// It cannot be started: the machine's fault, not that of a file that was to be read.
class HelperUnavailable : public Error {
 public:
  explicit HelperUnavailable(const std::string& message) : Error(ErrorKind::io, message) {}
};

/// Starts the program that is beside this one as it is built and as it is installed, or in
/// $GRAFT_LIBEXEC. It finds these descriptors as its 3, 4, …, and /dev/null as its standard ones;
/// of the environment it gets nothing but `variables` and what loading needs. Throws
/// HelperUnavailable.
pid_t start_helper(const HelperProgram& program, std::span<const int> descriptors,
                   std::vector<std::string> variables = {});

/// Kills it, and waits for its end.
void kill_helper(pid_t process);

/// How one ended that has closed its socket, in words; kills it where it does not end.
std::string end_helper(pid_t process);

}  // namespace graft
