// download_probe URL TARGET MD5 BYTES [TOLERANCE]: one download with short time limits.
#include <cstdio>
#include <cstdlib>

#include "base/hash.h"
#include "cli/signals.h"
#include "cli/terminal_reporter.h"
#include "graft/error.h"
#include "weights/download.h"

int main(int argc, char** argv) {
  if (argc != 5 && argc != 6) return 2;
  graft::cli::install_signal_handlers();
  try {
    const std::string md5 = argv[3];
    graft::Download job{.url = argv[1],
                        .target = argv[2],
                        .hash = "MD5 " + md5,
                        .bytes = std::strtoull(argv[4], nullptr, 10),
                        .is_right = [&](const std::filesystem::path& path) {
                          return graft::md5_of_file(path) == md5;
                        }};
    if (argc == 6) job.tolerance = std::strtoull(argv[5], nullptr, 10);
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
