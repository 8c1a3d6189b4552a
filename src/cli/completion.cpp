// graft completion: scripts for shells, made of the options that the commands have.
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

#include "cli/arguments.h"
#include "cli/commands.h"
#include "cli/common.h"

namespace graft::cli {
namespace {

struct CompletedOption {
  std::vector<std::string> names;  ///< "--output", "-o"; none: a positional
  std::string help;                ///< to the first sentence's end
  std::vector<std::string> choices;
  bool takes_value = false;
  bool takes_path = false;
  bool several = false;  ///< a positional that may be given again
};

/// What a shell offers paths for: names of values that stand for files and folders.
bool is_path(const std::string& value) {
  static const std::vector<std::string> kPaths = {
      "DATA",  "DIR",  "FILE", "FILE.csv", "FILE.html", "FILE.npy", "FILE.png",
      "MODEL", "PART", "PATH", "RUN",      "WEIGHTS",   "FILE.svg", "FILE.json"};
  return std::find(kPaths.begin(), kPaths.end(), value) != kPaths.end();
}

std::vector<CompletedOption> options_of(const Command& command) {
  std::vector<CompletedOption> out;
  visit_options(command, [&](const CLI::App& app) {
    for (CLI::Option* option : const_cast<CLI::App&>(app).get_options()) {
      CompletedOption o;
      for (const std::string& name : option->get_lnames()) o.names.push_back("--" + name);
      for (const std::string& name : option->get_snames()) o.names.push_back("-" + name);
      o.help = option->get_description();
      o.help = o.help.substr(0, o.help.find_first_of(";:("));
      while (!o.help.empty() && o.help.back() == ' ') o.help.pop_back();
      o.choices = choices(*option);
      o.takes_value = option->get_items_expected_min() > 0 && option->get_type_size_min() > 0;
      o.takes_path =
          is_path(option->get_positional() ? option->get_single_name() : option->get_type_name());
      o.several = option->get_items_expected_max() > 1;
      out.push_back(std::move(o));
    }
  });
  return out;
}

std::string joined(const std::vector<std::string>& words, const char* between = " ") {
  return fmt::format("{}", fmt::join(words, between));
}

std::string command_names() {
  std::vector<std::string> names;
  for (const Command& command : commands()) names.emplace_back(command.name);
  return joined(names);
}

std::string bash() {
  std::string out = fmt::format(
      "# bash completion for graft. Load it with: source <(graft completion bash)\n"
      "_graft() {{\n"
      "  local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} "
      "words='' paths='' place=0 i\n"
      "  COMPREPLY=()\n"
      "  # --option=value comes in three words.\n"
      "  if [ \"$word\" = = ]; then word=''; elif [ \"$before\" = = ]; then "
      "before=${{COMP_WORDS[COMP_CWORD-2]}}; fi\n"
      "  for ((i = 2; i < COMP_CWORD; i++)); do [[ ${{COMP_WORDS[i]}} == -* ]] || place=1; done\n"
      "  if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
      "    COMPREPLY=($(compgen -W '{} --help --version' -- \"$word\"))\n"
      "    return\n"
      "  fi\n"
      "  case ${{COMP_WORDS[1]}} in\n",
      command_names());
  for (const Command& command : commands()) {
    std::vector<std::string> names;
    std::vector<std::string> places;
    std::string values;
    std::vector<std::string> later;  // of the positionals after the first
    bool paths = false;
    bool later_paths = false;
    bool first = true;
    for (const CompletedOption& o : options_of(command)) {
      names.insert(names.end(), o.names.begin(), o.names.end());
      if (o.names.empty()) {
        std::vector<std::string>& mine = first ? places : later;
        mine.insert(mine.end(), o.choices.begin(), o.choices.end());
        (first ? paths : later_paths) |= o.takes_path || (!first && o.choices.empty());
        if (first && o.several) later_paths |= o.takes_path;
        first = false;
      } else if (!o.choices.empty()) {
        values +=
            fmt::format("        {}) words='{}' ;;\n", joined(o.names, "|"), joined(o.choices));
      } else if (o.takes_value) {
        values += fmt::format("        {}) paths={} ;;\n", joined(o.names, "|"),
                              o.takes_path ? "yes" : "no");
      }
    }
    out += fmt::format(
        "    {})\n"
        "      case $before in\n{}"
        "        *)\n"
        "          if [[ $word == -* ]]; then words='{}';\n"
        "          elif [ $place = 0 ]; then words='{}' paths={};\n"
        "          else words='{}' paths={}; fi ;;\n"
        "      esac ;;\n",
        command.name, values, joined(names), joined(places), paths ? "yes" : "no", joined(later),
        later_paths ? "yes" : "no");
  }
  return out +
         "  esac\n"
         "  if [ -n \"$words\" ]; then COMPREPLY=($(compgen -W \"$words\" -- \"$word\")); fi\n"
         "  if [ \"$paths\" = yes ]; then compopt -o filenames; local IFS=$'\\n'; "
         "COMPREPLY+=($(compgen -f -- \"$word\")); fi\n"
         "}\n"
         "complete -F _graft graft\n";
}

/// Within single quotes of zsh and fish.
std::string quoted(std::string text, const char* quote) {
  for (size_t at = 0; (at = text.find('\'', at)) != std::string::npos; at += 2)
    text.replace(at, 1, quote);
  return text;
}

std::string zsh() {
  std::string out =
      "#compdef graft\n# Put it as _graft into a folder of $fpath, or: source <(graft completion "
      "zsh)\n_graft() {\n  local -a commands\n  commands=(\n";
  for (const Command& command : commands())
    out += fmt::format("    '{}:{}'\n", command.name, quoted(std::string(command.summary), "’"));
  out +=
      "  )\n  if (( CURRENT == 2 )); then _describe command commands; return; fi\n"
      "  local command=$words[2]\n  shift words\n  (( CURRENT-- ))\n  case $command in\n";
  for (const Command& command : commands()) {
    out += fmt::format("    {})\n      _arguments", command.name);
    for (const CompletedOption& o : options_of(command)) {
      std::string value;
      if (!o.choices.empty())
        value = ":value:(" + joined(o.choices) + ")";
      else if (o.takes_path)
        value = ":path:_files";
      else if (o.takes_value)
        value = ":value: ";
      if (o.names.empty()) {
        out += fmt::format(" \\\n        '*{}'", value.empty() ? ":value: " : value);
        continue;
      }
      std::string help = quoted(o.help, "’");
      for (char& c : help)
        if (c == '[' || c == ']') c = ' ';
      for (const std::string& name : o.names)
        out += fmt::format(" \\\n        '{}[{}]{}'", name, help, value);
    }
    out += " ;;\n";
  }
  return out +
         "  esac\n}\nif [ \"$funcstack[1]\" = _graft ]; then _graft; else compdef _graft graft; "
         "fi\n";
}

std::string fish() {
  std::string out =
      "# fish completion for graft. Load it with: graft completion fish | source\n"
      "complete -c graft -f\n";
  for (const Command& command : commands())
    out += fmt::format("complete -c graft -n __fish_use_subcommand -a {} -d '{}'\n", command.name,
                       quoted(std::string(command.summary), "\\'"));
  for (const Command& command : commands()) {
    const std::string when =
        fmt::format("complete -c graft -n '__fish_seen_subcommand_from {}'", command.name);
    for (const CompletedOption& o : options_of(command)) {
      std::string line = when;
      for (const std::string& name : o.names)
        line += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
      if (o.takes_value && !o.names.empty()) line += " -r";
      if (o.takes_path) line += " -F";
      if (!o.choices.empty()) line += " -a '" + joined(o.choices) + "'";
      if (o.names.empty() && !o.takes_path && o.choices.empty()) continue;
      if (!o.names.empty()) line += " -d '" + quoted(o.help, "\\'") + "'";
      out += line + "\n";
    }
  }
  return out;
}

}  // namespace

int run_completion(int argc, char** argv) {
  std::string shell;
  CLI::App app("Prints a script that completes commands and options.", "graft completion");
  app.add_option("SHELL", shell, "bash, zsh or fish")
      ->required()
      ->check(one_of({"bash", "zsh", "fish"}))
      ->type_name("SHELL");
  app.footer(
      "Examples:\n"
      "  source <(graft completion bash)\n"
      "  graft completion fish > ~/.config/fish/completions/graft.fish");
  return run_app(app, argc, argv, [&] {
    print_result("{}", shell == "bash" ? bash() : shell == "zsh" ? zsh() : fish());
    return 0;
  });
}

}  // namespace graft::cli
