// graft help: what there is, and how a command is used.
#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "base/fail.h"
#include "base/words.h"
#include "cli/arguments.h"
#include "cli/commands.h"
#include "cli/common.h"

namespace graft::cli {

std::string help_text() {
  std::string text = fmt::format(
      "graft {} - image classifiers by transfer learning from VGG\n\nUsage: graft COMMAND …\n\n",
      GRAFT_VERSION);
  for (const Command& command : commands())
    text +=
        fmt::format("  graft {:<10} {:<11} {}\n", command.name, command.arguments, command.summary);
  return text + "\n'graft help COMMAND' explains a command. 'graft demo' shows it all.\n";
}

const Command& find_command(std::string_view name) {
  for (const Command& command : commands())
    if (name == command.name) return command;
  std::vector<std::string> names;
  for (const Command& command : commands()) names.emplace_back(command.name);
  std::string meant = did_you_mean(name, names);
  if (meant.empty()) {
    // What other programs call it.
    struct Synonym {
      std::string_view word;
      const char* command;
    };
    constexpr std::array<Synonym, 17> kSynonyms = {{{"classify", "predict"},
                                                    {"infer", "predict"},
                                                    {"label", "predict"},
                                                    {"test", "evaluate"},
                                                    {"validate", "evaluate"},
                                                    {"val", "evaluate"},
                                                    {"fit", "train"},
                                                    {"finetune", "train"},
                                                    {"info", "summary"},
                                                    {"convert", "export"},
                                                    {"embed", "features"},
                                                    {"benchmark", "bench"},
                                                    {"report", "evaluate"},
                                                    {"explain", "predict"},
                                                    {"gradcam", "predict"},
                                                    {"clean", "check"},
                                                    {"diff", "compare"}}};
    const auto* found = std::find_if(kSynonyms.begin(), kSynonyms.end(),
                                     [&](const Synonym& s) { return s.word == name; });
    if (found != kSynonyms.end()) meant = fmt::format(" (did you mean {}?)", found->command);
  }
  fail(ErrorKind::usage, "unknown command '{}'{}; see 'graft --help'", clipped(name), meant);
}

int run_help(int argc, char** argv) {
  std::vector<std::string> words;
  std::vector<std::string> names;
  for (const Command& command : commands()) names.emplace_back(command.name);
  CLI::App app("How a command is used: the same as 'graft COMMAND --help'.", "graft help");
  app.add_option("COMMAND", words, "The command, whose further words do not matter")
      ->check(with_choices({[](const std::string&) { return std::string(); }, ""}, names));
  app.footer("Examples:\n  graft help\n  graft help train");
  return run_app(app, argc, argv, [&] {
    if (words.empty()) {
      print_result("{}", help_text());
      return 0;
    }
    std::string option = "--help";
    std::array<char*, 3> arguments = {words.front().data(), option.data(), nullptr};
    return find_command(words.front()).run(2, arguments.data());
  });
}

}  // namespace graft::cli
