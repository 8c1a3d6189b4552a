// graft export: checks the options, then becomes the program that exports, which loads ONNX's and
// HDF5's libraries: no other command has to (decision 0022).
#include <unistd.h>

#include <cerrno>

#include "base/fail.h"
#include "base/file.h"
#include "base/limits.h"
#include "cli/commands.h"
#include "cli/export_options.h"

namespace graft::cli {

int run_export(int argc, char** argv) {
  return run_export_app(argc, argv, [&](const ExportArguments&) -> int {
    const fs::path program = companion_program("graft-export");
    ::execv(program.c_str(), argv);
    fail(ErrorKind::io, "{}: cannot start the exporting program: {}; build or install Graft anew",
         printable(program), system_error_text(errno));
  });
}

}  // namespace graft::cli
