// download_probe URL TARGET MD5 BYTES: one download with short time limits.
#include <cstdio>
#include <cstdlib>

#include "cli/signals.h"
#include "cli/terminal_reporter.h"
#include "graft/error.h"
#include "weights/download.h"

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  graft::cli::install_signal_handlers();
  try {
    graft::Download job{argv[1], argv[2], argv[3], std::strtoull(argv[4], nullptr, 10)};
    job.stall_seconds = 2;
    job.connect_seconds = 2;
    graft::cli::TerminalReporter reporter(graft::cli::Verbosity::normal);
    graft::download(job, {.reporter = &reporter, .stop = graft::cli::stop_token()});
  } catch (const graft::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return error.kind() == graft::ErrorKind::interrupted ? 130 : 1;
  }
  return 0;
}
