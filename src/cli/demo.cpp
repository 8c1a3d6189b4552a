// graft demo: the whole story, offline, on images that it draws itself.
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <set>
#include <string_view>

#include "base/fail.h"
#include "base/file.h"
#include "base/json.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/signals.h"
#include "demo/scenes.h"
#include "graft/image.h"

namespace graft::cli {
namespace {

constexpr int kImageSize = 128;
constexpr int kTrainPerClass = 60;
constexpr int kTestPerClass = 20;
constexpr int kJpegQuality = 90;
// Test images are drawn from other seeds than training images.
constexpr uint64_t kTestSeed = 1'000'000;

struct DemoOptions {
  CommonOptions common;
  std::string output = "graft-demo";
  bool force = false;
};

std::string image_name(int i) { return fmt::format("{:03}.jpg", i); }

void draw_split(const fs::path& folder, uint64_t first_seed, int count) {
  for (size_t kind = 0; kind < kSceneNames.size(); ++kind) {
    const fs::path class_folder = folder / std::string(kSceneNames.at(kind));
    make_folder(class_folder);
    for (int i = 0; i < count; ++i) {
      const Image image = draw_scene(kind, first_seed + static_cast<uint64_t>(i), kImageSize);
      AtomicFile file(class_folder / image_name(i));
      file.write(encode_jpeg(image, kJpegQuality));
      file.commit();
    }
  }
}

/// Throws where what --force would remove is no earlier demo's: a folder of images of somebody's
/// own may well be called data.
void require_demo_data(const fs::path& data) {
  std::set<std::string> known = {"train", "test"};
  for (const char* split : {"train", "test"})
    for (const std::string_view kind : kSceneNames) {
      const std::string folder = fmt::format("{}/{}", split, kind);
      known.insert(folder);
      for (int i = 0; i < std::max(kTrainPerClass, kTestPerClass); ++i)
        known.insert(folder + "/" + image_name(i));
    }
  std::error_code error;
  for (fs::recursive_directory_iterator it(data, error), end; !error && it != end;
       it.increment(error))
    if (!known.contains(it->path().lexically_relative(data).string()))
      fail(ErrorKind::usage,
           "{}: is not of an earlier demo, and --force would remove it with {}; choose another "
           "--output",
           printable(it->path()), printable(data));
}

/// Runs this program with other arguments, showing the command; returns when it succeeded.
void run_graft(std::vector<std::string> arguments) {
  print_result("\n$ graft");
  for (const std::string& argument : arguments) print_result(" {}", shell_quoted(argument));
  print_result("\n");
  std::fflush(stdout);
  std::error_code error;
  std::string program = fs::read_symlink("/proc/self/exe", error).string();
  std::vector<char*> argv = {program.data()};
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  pid_t child = 0;
  const int failed = ::posix_spawn(&child, program.c_str(), nullptr, nullptr, argv.data(), environ);
  if (failed != 0) fail(ErrorKind::io, "{}: cannot start: {}", program, std::strerror(failed));
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
    // Ctrl-C reached the child too; kill reaches only us.
    if (interrupting_signal() != 0) ::kill(child, interrupting_signal());
  }
  check_interrupted();
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
    fail(ErrorKind::io, "'graft {}' failed; its message is above", arguments[0]);
}

int run(const DemoOptions& o) {
  const fs::path folder = o.output;
  std::error_code error;
  if (fs::exists(folder, error) && !fs::is_empty(folder, error) && !o.force)
    fail(ErrorKind::usage, "{}: exists already; choose another --output, or --force to replace it",
         printable(folder));
  const fs::path data = folder / "data";
  const fs::path run_folder = folder / "run";
  require_demo_data(data);
  print_result("Drawing {} images of {} kinds of scene into {}\n",
               (kTrainPerClass + kTestPerClass) * static_cast<int>(kSceneNames.size()),
               kSceneNames.size(), printable(data));
  fs::remove_all(data, error);
  draw_split(data / "train", 0, kTrainPerClass);
  draw_split(data / "test", kTestSeed, kTestPerClass);

  std::vector<std::string> threads;
  if (o.common.threads > 0) threads = {"--threads", std::to_string(o.common.threads)};
  const auto with_threads = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), threads.begin(), threads.end());
    return arguments;
  };
  // Feature extraction, and fine-tuning of the last two blocks, on the backbone inside the program.
  run_graft(
      with_threads({"train", data.string(), "--backbone", "vgg-mini", "--head",
                    "stats batchnorm dense:128 dropout:0.5", "--epochs", "16", "--freeze-epochs",
                    "8", "--fine-tune", "block4_conv1", "--lr", "5e-4", "--cache-dir",
                    (folder / "cache").string(), "-o", run_folder.string(), "--force"}));
  run_graft(with_threads({"evaluate", run_folder.string(), data.string()}));
  std::vector<std::string> predict = {"predict", run_folder.string()};
  for (const size_t kind : {0, 2, 4})
    predict.push_back((data / "test" / std::string(kSceneNames.at(kind)) / "000.jpg").string());
  predict.insert(predict.end(), {"--top", "3"});
  run_graft(with_threads(predict));

  const nlohmann::json metrics = read_json_file(run_folder / "metrics.json");
  print_result("\nimages    {}\nmodel     {}\nmetrics   {}\nreport    {}\ntest accuracy {:.2f}\n",
               printable(data), printable(run_folder / "model.safetensors"),
               printable(run_folder / "metrics.json"), printable(run_folder / "report.html"),
               JsonField(metrics, "metrics.json").at("test").at("top1").number(0, 1));
  return 0;
}

}  // namespace

int run_demo(int argc, char** argv) {
  DemoOptions o;
  CLI::App app("Draws images of six kinds of scene, trains on them, evaluates, predicts.",
               "graft demo");
  app.add_option("-o,--output", o.output, "The folder to make")
      ->capture_default_str()
      ->type_name("DIR");
  app.add_flag("--force", o.force, "Replace an earlier demo in that folder");
  add_common_options(app, o.common);
  app.footer("Needs no network and no data; takes under a minute and a half on two cores.");
  return run_app(app, argc, argv, [&] { return run(o); });
}

}  // namespace graft::cli
