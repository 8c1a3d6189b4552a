// What all commands share: options, exit codes, output.
#pragma once

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/progress.h"
#include "graft/network.h"

namespace graft::cli {

/// Options that every command has.
struct CommonOptions {
  bool quiet = false;
  bool verbose = false;
  int threads = 0;  ///< 0: all that the process may use
  [[nodiscard]] Verbosity verbosity() const;
  [[nodiscard]] int thread_count() const;
};
void add_common_options(CLI::App& app, CommonOptions& options);

/// Within [least, most]; unlike CLI::Range it refuses "nan".
CLI::Validator within(double least, double most);

/// Options that name a network: those of train, summary and features.
struct NetworkOptions {
  std::string backbone = "vgg16";
  std::string weights;     ///< empty: the backbone's own
  std::string until;       ///< empty: the last pooling
  std::string input_size;  ///< "224" or "150x200" (height x width); empty: the backbone's own
  std::string head = "default";
  std::string fine_tune = "0";
  [[nodiscard]] std::pair<int, int> size() const;  ///< height, width
  /// "imagenet", "builtin", "none", or a file.
  [[nodiscard]] std::string weight_source() const;
};
void add_backbone_options(CLI::App& app, NetworkOptions& options);
void add_head_options(CLI::App& app, NetworkOptions& options);

/// A backbone's name as Graft writes it, for the ways that others write it: "VGG16", "VGG-16",
/// "vgg16bn" are vgg16 and vgg16_bn. Other texts stay as they are.
std::string backbone_name(const std::string& typed);

/// The backbone that the options describe, cut where they say.
Network make_backbone(const NetworkOptions& options, bool include_top);

/// Says so where --fine-tune is a number above that of the backbone's layers, which means all of
/// them; else empty.
std::string fine_tune_note(const Network& network, const std::string& fine_tune);

/// The cache folder: --cache-dir or the default.
std::filesystem::path cache_folder(const std::string& option);

/// An argument as a shell would need it typed.
std::string shell_quoted(const std::string& argument);

/// Writes results to standard output. Throws where they cannot be written: guarded() makes of it
/// exit code 1, with a line unless the reader has only seen enough ('| head'). On a terminal
/// control characters but newline and tab are replaced.
void vprint_result(fmt::string_view format, fmt::format_args args);
template <typename... Args>
void print_result(fmt::format_string<Args...> format, Args&&... args) {
  vprint_result(format, fmt::make_format_args(args...));
}

/// A check of options that name a file to write: without its suffix it is most often a file of
/// another kind, which would be lost.
CLI::Validator ends_in(const std::string& suffix);

/// Prints a JSON document on stdout; bytes that are not UTF-8 are replaced.
void print_json(const nlohmann::json& document);

/// Parses and runs one command: help, usage errors and exit codes are the same for all. `run` is
/// called after a successful parse and returns the exit code.
int run_app(CLI::App& app, int argc, char** argv, const std::function<int()>& run);

/// Runs `body`; errors become one line on stderr and the exit code of their kind. Also makes sure
/// that what went to stdout arrived.
int guarded(const std::function<int()>& body);

// One function per command; argv[0] is the command's name.
int run_train(int argc, char** argv);
int run_evaluate(int argc, char** argv);
int run_predict(int argc, char** argv);
int run_features(int argc, char** argv);
int run_summary(int argc, char** argv);
int run_weights(int argc, char** argv);
int run_preview(int argc, char** argv);
int run_check(int argc, char** argv);
int run_compare(int argc, char** argv);
int run_cache(int argc, char** argv);
int run_demo(int argc, char** argv);
int run_bench(int argc, char** argv);

}  // namespace graft::cli
