#include "cli/common.h"

#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>

#include "base/diagnostics.h"
#include "base/file.h"
#include "base/signals.h"
#include "base/threads.h"
#include "base/words.h"
#include "cli/arguments.h"
#include "cli/numbers.h"
#include "graft/error.h"
#include "weights/load.h"

namespace graft::cli {
namespace {

constexpr int kMostThreads = 1024;

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

/// Says what is wrong with a command line; returns the exit code.
int refuse(const CLI::App& app, std::string why) {
  std::replace(why.begin(), why.end(), '\n', ' ');
  print_diagnostic("graft: {}; see '{} --help'\n", bounded(std::move(why)), app.get_name());
  return 2;
}

/// Letters and digits alone, in lower case.
std::string plain_name(std::string_view name) {
  std::string out;
  for (const char c : name)
    if (std::isalnum(static_cast<unsigned char>(c)) != 0)
      out += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

int parse_extent(std::string_view text) {
  int value = 0;
  const auto [at, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || at != text.data() + text.size() || value < 1 || value > 16384)
    return 0;
  return value;
}

}  // namespace

Verbosity CommonOptions::verbosity() const {
  if (quiet) return Verbosity::quiet;
  return verbose ? Verbosity::verbose : Verbosity::normal;
}

int CommonOptions::thread_count() const { return threads > 0 ? threads : available_processors(); }

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

std::pair<int, int> NetworkOptions::size() const {
  if (input_size.empty()) {
    const int side = default_input_size(backbone);
    return {side, side};
  }
  const size_t cross = input_size.find('x');
  const int height = parse_extent(std::string_view(input_size).substr(0, cross));
  const int width = cross == std::string::npos
                        ? height
                        : parse_extent(std::string_view(input_size).substr(cross + 1));
  if (height == 0 || width == 0)
    fail(ErrorKind::usage, "--input-size: '{}' is not a size; write 224 or, height first, 150x200",
         clipped(input_size));
  return {height, width};
}

std::string NetworkOptions::weight_source() const {
  return weights.empty() ? default_weights(backbone) : weights;
}

void add_backbone_options(CLI::App& app, NetworkOptions& options) {
  app.add_option("--backbone", options.backbone,
                 fmt::format("Backbone: {}", fmt::join(backbone_names(), ", ")))
      ->transform(backbone_name)
      ->capture_default_str()
      ->type_name("NAME");
  app.add_option("--weights", options.weights,
                 "'imagenet' (from the cache, or downloaded), 'builtin' (vgg-mini's, inside this "
                 "program), a Keras .h5 file, a Graft model, or 'none' for random ones (default: "
                 "imagenet; vgg-mini builtin)")
      ->type_name("WEIGHTS");
  app.add_option("--until", options.until,
                 "Cut the backbone behind this layer (default: its last pooling)")
      ->type_name("LAYER");
  app.add_option("--input-size", options.input_size,
                 "Input size in pixels, N or HEIGHTxWIDTH (default: 224; vgg-mini 112)")
      ->type_name("N");
}

void add_head_options(CLI::App& app, NetworkOptions& options) {
  app.add_option("--head", options.head,
                 "New layers above the cut: conv:N maxpool gap gmp stats batchnorm flatten dense:N "
                 "dropout:P; the last Dense to the classes is implied")
      ->capture_default_str()
      ->type_name("LAYERS");
  app.add_option("--fine-tune", options.fine_tune,
                 "Backbone layers to train too: 0, the last N as Keras counts, the first one's "
                 "name, or 'all'")
      ->capture_default_str()
      ->type_name("N|LAYER|all");
}

std::string backbone_name(const std::string& typed) {
  for (const std::string& name : backbone_names())
    if (plain_name(name) == plain_name(typed)) return name;
  return typed;
}

Network make_backbone(const NetworkOptions& options, bool include_top) {
  const auto [height, width] = options.size();
  Network network = backbone(options.backbone, height, width, include_top);
  if (!options.until.empty()) network = cut_after(std::move(network), options.until);
  output_shapes(network);  // throws where a map shrinks to nothing
  return network;
}

std::string fine_tune_note(const Network& network, const std::string& fine_tune) {
  if (fine_tune.empty() || fine_tune.find_first_not_of("0123456789") != std::string::npos)
    return {};
  const auto layers =
      static_cast<size_t>(std::count_if(network.layers.begin(), network.layers.end(),
                                        [](const Layer& layer) { return !layer.in_head; }));
  size_t count = 0;
  const auto [at, error] =
      std::from_chars(fine_tune.data(), fine_tune.data() + fine_tune.size(), count);
  if (error == std::errc() && count <= layers) return {};
  return fmt::format("--fine-tune {}: the backbone has {} layers, and all of them are unfrozen",
                     clipped(fine_tune), layers);
}

fs::path cache_folder(const std::string& option) {
  return option.empty() ? default_cache_folder() : fs::path(option);
}

std::string shell_quoted(const std::string& argument) {
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=,+@%";
  if (!argument.empty() && argument.find_first_not_of(kPlain) == std::string::npos) return argument;
  std::string out = "'";
  for (const char c : argument) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

void vprint_result(fmt::string_view format, fmt::format_args args) {
  static const bool terminal = ::isatty(STDOUT_FILENO) == 1;
  std::string text = fmt::vformat(format, args);
  if (terminal) text = without_controls(std::move(text));
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) fail_output();
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
    print_diagnostic("graft: {}\n", bounded(error.what()));
    code = exit_code(error.kind());
  } catch (const OutputClosed&) {
    code = 1;  // no error worth a message
  } catch (const fs::filesystem_error& error) {
    // A path that the system does not take: too long, too many links, a folder that is closed.
    const std::string path = error.path1().empty() ? "." : printable(error.path1());
    print_diagnostic("graft: {}: {}\n", bounded(path), error.code().message());
  } catch (const std::bad_alloc&) {
    print_diagnostic("graft: out of memory; use a smaller --batch-size, --input-size or --head\n");
  } catch (const std::exception& error) {
    print_diagnostic("graft: unexpected: {}\n", bounded(error.what()));
  }
  return code;
}

int run_app(CLI::App& app, int argc, char** argv, const std::function<int()>& run) {
  app.option_defaults()->always_capture_default(false);
  app.formatter(std::make_shared<HelpFormatter>());
  refuse_empty_values(app);
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
    return refuse(app, error.what());
  }
  return guarded(run);
}

}  // namespace graft::cli
