// graft serve: classifiers over HTTP.
#include "graft/serve.h"

#include <poll.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdlib>

#include "base/diagnostics.h"
#include "base/fail.h"
#include "base/file.h"
#include "cli/arguments.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/numbers.h"
#include "cli/outputs.h"

namespace graft::cli {
namespace {

struct ServeArguments {
  CommonOptions common;
  ServeOptions serve;
  std::string token_file;
  int batch_wait_ms = 2;
  int max_body_mb = 32;
  int max_megapixels = 100;
  int max_images = 64;
  int max_queue = 256;
  int max_connections = 4096;
  int timeout = 60;
  bool json = false;
};

constexpr size_t kLeastToken = 16;  // characters
constexpr size_t kMostToken = 4096;

void check_token(const std::string& token, const std::string& place) {
  const bool plain =
      std::all_of(token.begin(), token.end(), [](char c) { return c > 32 && c < 127; });
  if (token.size() < kLeastToken || !plain)
    fail(ErrorKind::input,
         "{}: no token of {} and more printable characters without spaces, as 'openssl rand -hex "
         "32' makes it",
         place, kLeastToken);
}

/// From a file or the environment: a command line is seen by everybody on the machine.
std::string read_token(const std::string& file) {
  if (!file.empty()) {
    std::string token = read_text_file(file, kMostToken);
    while (!token.empty() && (token.back() == '\n' || token.back() == '\r')) token.pop_back();
    check_token(token, "--token-file " + printable(file));
    return token;
  }
  const char* token = std::getenv("GRAFT_TOKEN");
  if (token == nullptr) return "";
  check_token(token, "$GRAFT_TOKEN");
  return token;
}

class Observer : public ServeObserver {
 public:
  explicit Observer(const ServeArguments& o) : o_(o) {}

  void listening(const std::string& host, int port) override {
    const std::string name = host.find(':') == std::string::npos ? host : "[" + host + "]";
    const std::string url = fmt::format("http://{}:{}/", name, port);
    if (o_.json) {
      print_json({{"url", url}, {"host", host}, {"port", port}});
    } else if (!o_.common.quiet) {
      print_result("serving on {} (Ctrl-C stops)\n", url);
    }
    std::fflush(stdout);
    const bool loopback = host.starts_with("127.") || host == "::1";
    if (!loopback && o_.serve.token.empty())
      print_diagnostic(
          "graft: warning: {} can be reached from other machines, without a token; see "
          "--token-file, and docs/serving.md for TLS\n",
          url);
  }
  /// A reader that stands still costs lines, and neither requests nor the end.
  void log(const std::string& line) override {
    if (o_.common.quiet) return;
    pollfd stderr_ready{STDERR_FILENO, POLLOUT, 0};
    is_stuck_ = ::poll(&stderr_ready, 1, is_stuck_ ? 0 : 1000) == 0;
    if (!is_stuck_) write_diagnostic(line + "\n");
  }

 private:
  const ServeArguments& o_;
  bool is_stuck_ = false;  // of the thread that logs
};

/// As many descriptors as this process may have, and no more connections than those allow: one too
/// many is told so, instead of waiting for ever.
size_t allowed_connections(size_t wanted) {
  constexpr rlim_t kOthers = 64;  // files, models, what the system takes
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return wanted;
  if (limit.rlim_cur < limit.rlim_max && limit.rlim_cur < wanted + kOthers) {
    limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, wanted + kOthers);
    ::setrlimit(RLIMIT_NOFILE, &limit);
    ::getrlimit(RLIMIT_NOFILE, &limit);
  }
  if (limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur >= wanted + kOthers) return wanted;
  return limit.rlim_cur > 2 * kOthers ? limit.rlim_cur - kOthers : limit.rlim_cur / 2;
}

int run(ServeArguments& o) {
  ServeOptions& s = o.serve;
  s.token = read_token(o.token_file);
  s.batch_wait = std::chrono::milliseconds(o.batch_wait_ms);
  s.most_body_bytes = static_cast<uint64_t>(o.max_body_mb) << 20U;
  s.most_bytes = std::max(s.most_bytes, 2 * s.most_body_bytes);
  s.most_pixels = int64_t{o.max_megapixels} * 1'000'000;
  s.most_images = static_cast<size_t>(o.max_images);
  s.most_explained = std::min(s.most_explained, s.most_images);
  s.most_queued = std::max(static_cast<size_t>(o.max_queue), s.most_images);
  s.most_connections = allowed_connections(static_cast<size_t>(o.max_connections));
  s.request_time = std::chrono::seconds(o.timeout);
  Observer observer(o);
  serve(s, observer, o.common.context());
  return 0;
}

}  // namespace

int run_serve(int argc, char** argv) {
  ServeArguments o;
  CLI::App app("Classifies images over HTTP, for programs and, with a page, for people.",
               "graft serve");
  app.add_option("MODEL", o.serve.models,
                 "Model files, run folders, or folders of them; NAME=PATH gives one another name. "
                 "The first is the default")
      ->required();
  app.add_option("--host", o.serve.host,
                 "The IP address to listen on; 0.0.0.0 is all of this machine's")
      ->capture_default_str()
      ->type_name("ADDRESS");
  app.add_option("--port", o.serve.port, "0: any free one")
      ->check(whole_number(0, 65535))
      ->capture_default_str()
      ->type_name("N");
  app.add_option("--allow-host", o.serve.allowed_hosts,
                 "Names that requests may call this server by, beside addresses and localhost; '*' "
                 "is any, for use behind a proxy")
      ->type_name("NAME");
  app.add_option("--token-file", o.token_file,
                 "A file with a token that requests must bear (or $GRAFT_TOKEN)")
      ->type_name("FILE");
  app.add_option("--batch-size", o.serve.max_batch, "Images computed at once, at most")
      ->check(whole_number(1, 1024))
      ->capture_default_str()
      ->type_name("N");
  app.add_option("--batch-wait", o.batch_wait_ms,
                 "Milliseconds that a batch waits for images that are being decoded")
      ->check(whole_number(0, 1000))
      ->capture_default_str()
      ->type_name("MS");
  add_views_option(app, o.serve.views);
  add_precision_option(app, o.serve.precision);
  app.add_option("--max-body", o.max_body_mb, "MB of a request")
      ->check(whole_number(1, 1024))
      ->capture_default_str()
      ->type_name("MB");
  app.add_option("--max-megapixels", o.max_megapixels, "Megapixels of an image")
      ->check(whole_number(1, 100))
      ->capture_default_str()
      ->type_name("N");
  app.add_option("--max-images", o.max_images, "Images of a request")
      ->check(whole_number(1, 10'000))
      ->capture_default_str()
      ->type_name("N");
  app.add_option("--max-queue", o.max_queue,
                 "Images of all requests at once; more are answered 503, try again")
      ->check(whole_number(1, 100'000))
      ->capture_default_str()
      ->type_name("N");
  app.add_option("--max-connections", o.max_connections, "Connections at once")
      ->check(whole_number(1, 100'000))
      ->capture_default_str()
      ->type_name("N");
  app.add_option("--timeout", o.timeout, "Seconds for a request's body, and again for its answer")
      ->check(whole_number(1, 3600))
      ->capture_default_str()
      ->type_name("SECONDS");
  app.add_flag("--json", o.json, "The address as a JSON document on stdout");
  add_common_options(app, o.common);
  app.footer(
      "Examples:\n"
      "  graft serve runs/scenes\n"
      "  curl -F image=@beach.jpg 'http://127.0.0.1:8080/predict?top=3'\n"
      "  graft serve scenes=runs/a pets=runs/b --port 9000\n"
      "  graft serve runs/scenes --host 0.0.0.0 --token-file token.txt\n"
      "Each request is a line of JSON on stderr. A model whose file is replaced is loaded anew. "
      "docs/serving.md has the interface, limits, and how to run it as a service.");
  return run_app(app, argc, argv, [&] { return run(o); });
}

}  // namespace graft::cli
