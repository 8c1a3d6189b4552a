// The program `graft`: picks the command.
#include <fmt/format.h>
#include <malloc.h>

#include <string_view>

#include "base/diagnostics.h"
#include "base/limits.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/signals.h"

int main(int argc, char** argv) {
  using namespace graft::cli;
  graft::prepare_standard_streams();
  const std::string_view name = argc > 1 ? argv[1] : "";
  if (name == "--help" || name == "-h" || name == "--version" || name == "version") {
    return guarded([&] {
      print_result(
          "{}", name.ends_with("version") ? fmt::format("graft {}\n", GRAFT_VERSION) : help_text());
      return 0;
    });
  }
  if (name.empty()) {
    // Help that was not asked for is no result.
    graft::print_diagnostic("{}\ngraft: no command given\n", help_text());
    return 2;
  }
  const Command* command = nullptr;
  const int code = guarded([&] {
    command = &find_command(name);
    return 0;
  });
  if (command == nullptr) return code;
  install_signal_handlers();
  // Each arena of the allocator reserves 64 MB, and how many there are is chance.
  if (graft::address_space_is_scarce()) ::mallopt(M_ARENA_MAX, 1);
  return command->run(argc - 1, argv + 1);
}
