// The commands of `graft`, each once: for the dispatcher, the help, manual pages and completions.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace graft::cli {

struct Command {
  std::string_view name;
  int (*run)(int, char**);
  std::string_view arguments;
  std::string_view summary;
};

std::span<const Command> commands();

/// Throws Error(usage) that names the nearest one where there is none of that name.
const Command& find_command(std::string_view name);

/// The commands, a line each.
std::string help_text();

/// Hands the command's options to `look`, and runs nothing.
void visit_options(const Command& command, const std::function<void(const CLI::App&)>& look);

// One function per command; argv[0] is the command's name.
int run_train(int argc, char** argv);
int run_evaluate(int argc, char** argv);
int run_predict(int argc, char** argv);
int run_features(int argc, char** argv);
int run_export(int argc, char** argv);
int run_serve(int argc, char** argv);
int run_summary(int argc, char** argv);
int run_weights(int argc, char** argv);
int run_preview(int argc, char** argv);
int run_check(int argc, char** argv);
int run_compare(int argc, char** argv);
int run_cache(int argc, char** argv);
int run_demo(int argc, char** argv);
int run_bench(int argc, char** argv);
int run_completion(int argc, char** argv);
int run_man(int argc, char** argv);
int run_help(int argc, char** argv);

}  // namespace graft::cli
