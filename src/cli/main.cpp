// The program `graft`: picks the command.
#include <fmt/format.h>

#include <string>
#include <string_view>
#include <vector>

#include "base/diagnostics.h"
#include "base/words.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/signals.h"

namespace {

void print_help() {
  using namespace graft::cli;
  print_result(
      "graft {} - image classifiers by transfer learning from VGG\n\nUsage: graft COMMAND …\n\n",
      GRAFT_VERSION);
  for (const Command& command : commands())
    print_result("  graft {:<10} {:<11} {}\n", command.name, command.arguments, command.summary);
  print_result("\n'graft COMMAND --help' explains a command. 'graft demo' shows it all.\n");
}

}  // namespace

int main(int argc, char** argv) {
  graft::prepare_standard_streams();
  const std::string_view name = argc > 1 ? argv[1] : "";
  if (name == "--help" || name == "-h" || name == "help") {
    return graft::cli::guarded([] {
      print_help();
      return 0;
    });
  }
  if (name == "--version") {
    return graft::cli::guarded([] {
      graft::cli::print_result("graft {}\n", GRAFT_VERSION);
      return 0;
    });
  }
  for (const graft::cli::Command& command : graft::cli::commands()) {
    if (name != command.name) continue;
    graft::cli::install_signal_handlers();
    return command.run(argc - 1, argv + 1);
  }
  if (name.empty()) {
    graft::print_diagnostic("graft: no command given; see 'graft --help'\n");
    return 2;
  }
  std::vector<std::string> names;
  for (const graft::cli::Command& command : graft::cli::commands())
    names.emplace_back(command.name);
  graft::print_diagnostic("graft: unknown command '{}'{}; see 'graft --help'\n",
                          graft::clipped(name), graft::did_you_mean(name, names));
  return 2;
}
