#include "cli/common.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

#include "base/diagnostics.h"
#include "base/fail.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/threads.h"
#include "base/words.h"
#include "cli/arguments.h"
#include "cli/numbers.h"
#include "cli/option_flags.h"
#include "cli/signals.h"

namespace graft::cli {
namespace {

int exit_code(ErrorKind kind) {
  if (kind == ErrorKind::usage) return 2;
  if (kind == ErrorKind::interrupted) return 128 + interrupting_signal();
  return 1;
}

/// Whoever reads standard output has gone.
class OutputClosed : public std::exception {};

[[noreturn]] void fail_output() {
  const int reason = errno;
  if (reason == EPIPE) throw OutputClosed();
  fail(ErrorKind::io, "standard output: writing failed: {}; the results are incomplete",
       std::strerror(reason));
}

std::function<void(const CLI::App&)> looking;  // of the AppVisit that lives

/// Says what is wrong with a command line; returns the exit code.
int refuse(const CLI::App& app, std::string why) {
  std::replace(why.begin(), why.end(), '\n', ' ');
  print_diagnostic("graft: {}; see '{} --help'\n", bounded(why), app.get_name());
  return 2;
}

}  // namespace

Verbosity CommonOptions::verbosity() const {
  if (quiet) return Verbosity::quiet;
  return verbose ? Verbosity::verbose : Verbosity::normal;
}

int CommonOptions::thread_count() const { return threads > 0 ? threads : available_processors(); }

RunContext CommonOptions::context() const {
  if (!reporter_) reporter_ = std::make_shared<TerminalReporter>(verbosity());
  return {thread_count(), reporter_.get(), stop_token()};
}

void add_common_options(CLI::App& app, CommonOptions& options) {
  auto* quiet = app.add_flag("--quiet", options.quiet, "Print results and errors only");
  app.add_flag("--verbose", options.verbose, "Print more about what is done")->excludes(quiet);
  app.add_option("--threads", options.threads,
                 "Threads to use (default: the processors that this process may use)")
      ->check(whole_number(1, kMostThreads))
      ->type_name("N");
}

CLI::Validator within(double least, double most) {
  return {[=](std::string& text) {
            double value = 0;
            if (CLI::detail::lexical_cast(text, value) && value >= least && value <= most)
              return std::string();
            return fmt::format("'{}' is not a number from {:g} to {:g}", clipped(text), least,
                               most);
          },
          ""};
}

void add_backbone_options(CLI::App& app, Recipe::Model& model) {
  options::visit_backbone(FlagAdder{app}, model);
}

void add_head_options(CLI::App& app, Recipe::Model& model) {
  options::visit_head(FlagAdder{app}, model);
}

void add_views_option(CLI::App& app, int& views) {
  app.add_option("--views", views,
                 "Views of each image: 1, or 2 for the image and its mirror image, logits averaged "
                 "(default: as the model was trained with --test-views)")
      ->check(whole_number(1, kMostTestViews))
      ->type_name("K");
}

void add_precision_option(CLI::App& app, Precision& precision) {
  FlagAdder{app}(
      {"precision", "TYPE",
       app.get_option_no_throw("--device") != nullptr
           ? "What convolutions are computed with: fp32; bf16, on processors with AMX or "
             "AVX512_BF16 and on GPUs; or auto, bf16 where the processor is fast at it, and on "
             "a GPU that --device names"
           : "What convolutions are computed with: fp32; bf16, on processors with AMX or "
             "AVX512_BF16; or auto, bf16 where the processor is fast at it"},
      precision, options::Word{});
  app.get_option("--precision")->group(app.get_option("--help")->get_group());
}

fs::path cache_folder(const std::string& option) {
  return option.empty() ? default_cache_folder() : fs::path(option);
}

fs::path companion_program(const std::string& name) {
  std::error_code error;
  const fs::path self = fs::read_symlink("/proc/self/exe", error);
  return self.parent_path().parent_path() / "libexec" / "graft" / name;
}

void vprint_result(fmt::string_view format, fmt::format_args args) {
  static const bool terminal = ::isatty(STDOUT_FILENO) == 1;
  std::string text = fmt::vformat(format, args);
  if (terminal) text = without_controls(std::move(text));
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) fail_output();
}

void tell_wrote(const CommonOptions& common, const fs::path& file) {
  std::fflush(stdout);  // keeps the two streams in order on a terminal
  common.context().tell(Severity::info, "wrote " + printable(file));
}

CLI::Validator ends_in(const std::string& suffix) {
  return CLI::Validator(
      [suffix](std::string& value) {
        return value.ends_with(suffix)
                   ? std::string()
                   : printable(value) + ": the name of the file to write must end in " + suffix;
      },
      "");
}

void print_json(const nlohmann::json& document) {
  print_result("{}\n", document.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
}

int guarded(const std::function<int()>& body) {
  int code = 1;
  try {
    code = body();
    if (std::fflush(stdout) != 0) fail_output();
  } catch (const Error& error) {
    std::string text = with_flags(error.what());
    if (error.kind() == ErrorKind::interrupted && text == "interrupted")
      text = interruption_text();
    else if (interrupting_signal() == SIGXCPU && text.starts_with("interrupted"))
      text.replace(0, std::string_view("interrupted").size(), interruption_text());
    print_diagnostic("graft: {}\n", bounded(text));
    code = exit_code(error.kind());
  } catch (const OutputClosed&) {
    code = 1;  // no error worth a message
  } catch (const fs::filesystem_error& error) {
    // A path that the system does not take: too long, too many links, a folder that is closed.
    const std::string path = error.path1().empty() ? "." : printable(error.path1());
    print_diagnostic("graft: {}: {}\n", bounded(path), error.code().message());
  } catch (const std::system_error& error) {
    // Of the standard library, which throws it where no thread can be started.
    const bool threads = error.code() == std::errc::resource_unavailable_try_again;
    print_diagnostic("graft: {}\n",
                     threads
                         ? "no further thread can be started: the limit on processes (ulimit -u, "
                           "or of a control group) is reached; raise it"
                         : bounded(error.what()));
  } catch (const std::bad_alloc&) {
    const char* limit = address_space_limit() ? " under a limit (ulimit -v)"
                        : data_limit()        ? " under a limit (ulimit -d)"
                                              : "";
    print_diagnostic(
        "graft: out of memory{}; {}use a smaller --batch-size, --input-size or --head\n", limit,
        *limit != '\0' ? "raise it, or " : "");
  } catch (const std::exception& error) {
    print_diagnostic("graft: unexpected: {}\n", bounded(error.what()));
  }
  return code;
}

AppVisit::AppVisit(std::function<void(const CLI::App&)> look) { looking = std::move(look); }
AppVisit::~AppVisit() { looking = nullptr; }

int run_app(CLI::App& app, int argc, char** argv, const std::function<int()>& run) {
  app.option_defaults()->always_capture_default(false);
  app.formatter(std::make_shared<HelpFormatter>());
  refuse_empty_values(app);
  if (looking) {
    std::exchange(looking, [](const CLI::App&) {})(app);  // once, though train has two passes
    return 0;
  }
  try {
    check_options(app, argc, argv);
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    return guarded([&] {
      print_result("{}", app.help());
      return 0;
    });
  } catch (const CLI::ExtrasError&) {
    return refuse(app, unexpected_words(app, app.remaining()));
  } catch (const CLI::ParseError& error) {
    return refuse(app, error.what());
  } catch (const Error& error) {
    return refuse(app, with_flags(error.what()));
  }
  return guarded(run);
}

}  // namespace graft::cli
