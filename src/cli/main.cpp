// The program `graft`: picks the command.
#include <fmt/format.h>

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "base/diagnostics.h"
#include "base/words.h"
#include "cli/common.h"
#include "cli/signals.h"

namespace {

struct Command {
  std::string_view name;
  int (*run)(int, char**);
  std::string_view summary;
};

constexpr std::array<Command, 12> kCommands = {{
    {"train", graft::cli::run_train, "DATA            train a classifier on a folder of pictures"},
    {"evaluate", graft::cli::run_evaluate, "MODEL DATA   metrics on labelled pictures"},
    {"predict", graft::cli::run_predict, "MODEL PATH…   classify pictures or folders of them"},
    {"features", graft::cli::run_features, "PATH…        activations of a backbone as .npy"},
    {"summary", graft::cli::run_summary, "[MODEL]       layers, shapes, parameters"},
    {"weights", graft::cli::run_weights, "ACTION        list, download, verify pretrained weights"},
    {"check", graft::cli::run_check, "DATA            damaged, odd and identical pictures, leaks"},
    {"preview", graft::cli::run_preview, "DATA          a contact sheet of augmented pictures"},
    {"compare", graft::cli::run_compare, "RUN…          training runs side by side"},
    {"cache", graft::cli::run_cache, "ACTION          list or clear cached features"},
    {"demo", graft::cli::run_demo, "                 the whole story, offline, in a minute"},
    {"bench", graft::cli::run_bench, "                this machine's speed, layer by layer"},
}};

void print_help() {
  using graft::cli::print_result;
  print_result(
      "graft {} - image classifiers by transfer learning from VGG\n\nUsage: graft COMMAND …\n\n",
      GRAFT_VERSION);
  for (const Command& command : kCommands)
    print_result("  graft {} {}\n", command.name, command.summary);
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
  for (const Command& command : kCommands) {
    if (name != command.name) continue;
    graft::cli::install_signal_handlers();
    return command.run(argc - 1, argv + 1);
  }
  if (name.empty()) {
    graft::print_diagnostic("graft: no command given; see 'graft --help'\n");
    return 2;
  }
  std::vector<std::string> names;
  for (const Command& command : kCommands) names.emplace_back(command.name);
  graft::print_diagnostic("graft: unknown command '{}'{}; see 'graft --help'\n",
                          graft::clipped(name), graft::did_you_mean(name, names));
  return 2;
}
