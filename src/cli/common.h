// What all commands share: options, exit codes, output.
#pragma once

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "base/progress.h"
#include "base/words.h"
#include "cli/terminal_reporter.h"
#include "graft/context.h"
#include "graft/network.h"
#include "graft/precision.h"
#include "graft/recipe.h"

namespace graft::cli {

/// Options that every command has.
struct CommonOptions {
  bool quiet = false;
  bool verbose = false;
  int threads = 0;  ///< 0: all that the process may use
  [[nodiscard]] Verbosity verbosity() const;
  [[nodiscard]] int thread_count() const;
  /// For calls of the library: these threads, messages and progress on standard error, and the
  /// signals that ask to stop.
  [[nodiscard]] RunContext context() const;
  /// In place of standard error, for all contexts from now on.
  void report_to(std::shared_ptr<Reporter> reporter) { reporter_ = std::move(reporter); }

 private:
  mutable std::shared_ptr<Reporter> reporter_;
};
inline constexpr int kMostThreads = kMaxThreads;
void add_common_options(CLI::App& app, CommonOptions& options);

/// Within [least, most]; unlike CLI::Range it refuses "nan".
CLI::Validator within(double least, double most);

/// The options that name a network: those of train, summary and features.
void add_backbone_options(CLI::App& app, Recipe::Model& model);
void add_head_options(CLI::App& app, Recipe::Model& model);

/// --views of a finished model; 0: its own.
void add_views_option(CLI::App& app, int& views);

/// --precision of commands that run a network.
void add_precision_option(CLI::App& app, Precision& precision);

/// The cache folder: --cache-dir or the default.
std::filesystem::path cache_folder(const std::string& option);

/// The program that a command becomes, of the same build or installation.
std::filesystem::path companion_program(const std::string& name);

/// Writes results to standard output. Throws where they cannot be written: guarded() makes of it
/// exit code 1, with a line unless the reader has only seen enough ('| head'). On a terminal
/// control characters but newline and tab are replaced.
void vprint_result(fmt::string_view format, fmt::format_args args);
template <typename... Args>
void print_result(fmt::format_string<Args...> format, Args&&... args) {
  vprint_result(format, fmt::make_format_args(args...));
}

/// "wrote FILE" for each file that a command makes: on standard error, or as an event.
void tell_wrote(const CommonOptions& common, const std::filesystem::path& file);

/// A check of options that name a file to write: without its suffix it is most often a file of
/// another kind, which would be lost.
CLI::Validator ends_in(const std::string& suffix);

/// Prints a JSON document on stdout; bytes that are not UTF-8 are replaced.
void print_json(const nlohmann::json& document);

/// While one lives, run_app() hands its app to `look`, and neither parses nor runs.
class AppVisit {
 public:
  explicit AppVisit(std::function<void(const CLI::App&)> look);
  ~AppVisit();
  AppVisit(const AppVisit&) = delete;
  AppVisit& operator=(const AppVisit&) = delete;
};

/// Parses and runs one command: help, usage errors and exit codes are the same for all. `run` is
/// called after a successful parse and returns the exit code.
int run_app(CLI::App& app, int argc, char** argv, const std::function<int()>& run);

/// Runs `body`; errors become one line on stderr and the exit code of their kind. Also makes sure
/// that what went to stdout arrived.
int guarded(const std::function<int()>& body);

}  // namespace graft::cli
