#include "cli/training_program.h"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "base/fail.h"
#include "base/file.h"
#include "base/limits.h"
#include "cli/blas_kernels.h"
#include "cli/option_flags.h"

namespace graft::cli {
namespace {

constexpr const char* kProgram = "graft-train";

}  // namespace

void prepare_training_program() {
  // One thread of OpenBLAS's own: Graft shares products out, and what OpenBLAS cannot start or
  // allocate while it is loaded ends or hangs the process.
  ::setenv("OPENBLAS_NUM_THREADS", "1", 1);
  if (std::getenv("OPENBLAS_CORETYPE") == nullptr)
    if (const std::string kernels = better_blas_kernels(); !kernels.empty())
      ::setenv("OPENBLAS_CORETYPE", kernels.c_str(), 0);
  // Threads of OpenMP wait for each other at the end of every operation, by default for 300,000
  // turns of a loop before they let go of the processor (libgomp's manual, GOMP_SPINCOUNT), which
  // they thereby keep from the thread that is waited for where another program runs beside this
  // one: bench/busy.py.
  if (std::getenv("OMP_WAIT_POLICY") == nullptr) ::setenv("GOMP_SPINCOUNT", "1000", 0);
  // Each arena of the allocator reserves 64 MB, and how many there are is chance.
  if (address_space_is_scarce()) ::setenv("MALLOC_ARENA_MAX", "1", 0);
}

void become_training_program(char** argv) {
  prepare_training_program();
  const fs::path program = companion_program(kProgram);
  ::execv(program.c_str(), argv);
  fail(ErrorKind::io,
       "{}: cannot start the training program: {}; build or install Graft with LibTorch",
       printable(program), system_error_text(errno));
}

void add_device_option(CLI::App& app, std::string& device) {
  FlagAdder{app}({"device", "NAME",
                  "What computes: cpu; cuda or cuda:N, a GPU; auto, a GPU where there is one; "
                  "torch-cpu, LibTorch on the processor"},
                 device, options::Text{check_device, nullptr, device_names});
  app.get_option("--device")->group(app.get_option("--help")->get_group());
}

DeviceOpener opener_by_becoming(char** argv) {
  return [argv](const std::string& name,
                const CommonOptions&) -> std::shared_ptr<const ComputeDevice> {
    std::error_code error;
    if (name == "cpu" || (name == "auto" && !fs::exists(companion_program(kProgram), error)))
      return nullptr;
    become_training_program(argv);
  };
}

}  // namespace graft::cli
