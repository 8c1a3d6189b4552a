// graft predict: classify images.
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>
#include <set>

#include "base/diagnostics.h"
#include "base/fail.h"
#include "base/file.h"
#include "base/limits.h"
#include "cli/arguments.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/numbers.h"
#include "cli/outputs.h"
#include "cli/predict_maps.h"
#include "cli/predict_output.h"
#include "cli/signals.h"
#include "cli/training_program.h"
#include "graft/classifier.h"
#include "graft/dataset.h"
#include "graft/explain.h"
#include "graft/folder_watch.h"
#include "graft/image.h"

namespace graft::cli {
namespace {

/// Lines of standard input, which may wait for ever: signals are heeded, unlike by std::getline.
void each_line_of_input(const std::function<void(std::string)>& take) {
  constexpr size_t kMostLine = 64 << 10U;
  std::string line;
  std::array<char, 4096> buffer{};
  while (true) {
    check_interrupted();
    const ssize_t got = ::read(STDIN_FILENO, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0)
      fail(ErrorKind::io, "-: standard input cannot be read: {}", system_error_text(errno));
    if (got == 0) break;
    for (const char c : std::string_view(buffer.data(), static_cast<size_t>(got))) {
      if (c != '\n') {
        line += c;
        continue;
      }
      check_interrupted();
      take(std::exchange(line, {}));
    }
    if (line.size() > kMostLine)
      fail(ErrorKind::input, "-: a line of over {} bytes on standard input; expected a path a line",
           kMostLine);
  }
  if (!line.empty()) take(std::move(line));
}

/// Whether one is the other, or below it. `folder` is whole_path()'s.
bool is_within(const fs::path& path, const fs::path& folder) {
  const fs::path inner = whole_path(path);
  return std::mismatch(folder.begin(), folder.end(), inner.begin(), inner.end()).first ==
         folder.end();
}

/// The folder that is sorted into, for is_within().
fs::path sorted_folder(const PredictOptions& o) {
  if (o.sort_into.empty()) return {};
  // Absolute first: of what is not there yet a relative name would stay one.
  const fs::path folder = whole_path(fs::absolute(o.sort_into));
  // "sorted/" ends in an empty part, which nothing below it has.
  return folder.has_filename() ? folder : folder.parent_path();
}

/// Images in the order given; what cannot be found is an error of the output's. What was sorted
/// before is not read again.
std::vector<fs::path> collect(const PredictOptions& o, PredictOutput& output) {
  std::vector<fs::path> paths;
  size_t sorted = 0;
  const fs::path sorted_into = sorted_folder(o);
  const auto add = [&](const std::string& argument) {
    try {
      std::string unread;
      for (fs::path& path : list_images(argument, o.common.context(), &unread)) {
        if (!o.sort_into.empty() && is_within(path, sorted_into))
          ++sorted;
        else
          paths.push_back(std::move(path));
      }
      if (!unread.empty())
        print_diagnostic("graft: {}: {}; left out\n", printable(argument), unread);
    } catch (const Error& error) {
      output.add_error(argument, error.what());
    }
  };
  for (const std::string& argument : o.paths) {
    if (argument != "-") {
      add(argument);
      continue;
    }
    each_line_of_input([&](std::string line) {
      if (!line.empty() && line.back() == '\r') line.pop_back();
      if (!line.empty()) add(line);
    });
  }
  if (sorted > 0 && !o.common.quiet)
    print_diagnostic("graft: {} image{} in {} left out: sorted before\n", sorted,
                     sorted == 1 ? "" : "s", printable(o.sort_into));
  for (const std::string& file : o.outputs) {
    ResultFile::check_size(file, paths.size());
    refuse_input_as_output(file, "-o", paths);
  }
  return paths;
}

/// Labels alone.
int classify(const PredictOptions& o, const Classifier& classifier, const RunContext& context) {
  PredictOutput output(o, classifier.classes());
  const std::vector<fs::path> paths = collect(o, output);
  RunContext each = context;
  if (!output.shows_progress()) each.reporter = nullptr;
  classify_files(
      classifier, paths, output.thumbnail(),
      [&](size_t i, const Prediction& p, const Image& small) { output.add(paths[i], p, small); },
      [&](size_t i, const std::string& message) { output.add_error(paths[i].string(), message); },
      each);
  return output.finish();
}

/// Labels and maps.
int explain(const PredictOptions& o, const RunContext& context) {
  Explainer explainer = Explainer::load(o.model, o.explain_layer, context, o.views, o.precision);
  PredictOutput output(o, explainer.info().classes);
  const std::vector<fs::path> paths = collect(o, output);
  MapWriter writer(o.explain, o.force, explainer, paths);
  RunContext each = context;
  if (!output.shows_progress()) each.reporter = nullptr;
  explain_files(
      explainer, paths,
      [&](size_t i, const ActivationMap& map, const Image& image) {
        const std::string path = paths[i].string();
        try {
          output.add(paths[i], to_prediction(map.logits), image);
        } catch (const Error& error) {
          if (error.kind() != ErrorKind::input) throw;
          output.add_error(path, fmt::format("{}: {}", printable(paths[i]), error.what()));
        }
        if (const std::string why = writer.write(i, map, image); !why.empty())
          output.add_error(path, why);
      },
      [&](size_t i, const std::string& message) { output.add_error(paths[i].string(), message); },
      each);
  const int code = output.finish();
  tell_wrote(o.common, writer.finish());
  return code;
}

/// Images as they come, until a signal.
int watch(const PredictOptions& o, const Classifier& classifier, const RunContext& context) {
  constexpr size_t kAtOnce = 64;  // images that are waited for after a signal
  FolderWatchOptions options{
      .every = std::chrono::milliseconds(static_cast<int64_t>(o.watch_every * 1000)),
      .excluded = {}};
  if (!o.sort_into.empty()) options.excluded.emplace_back(o.sort_into);
  FolderWatch folder(o.watch, options, context);
  PredictOutput output(o, classifier.classes());
  const std::vector<fs::path> there = collect(o, output);
  folder.known(there);
  // What is in flight is finished, whatever the signal.
  const RunContext each{.threads = context.threads};
  const auto classify_some = [&](std::span<const fs::path> paths) {
    classify_files(
        classifier, paths, [&](size_t i, const Prediction& p) { output.add(paths[i], p, Image()); },
        [&](size_t i, const std::string& message) { output.add_error(paths[i].string(), message); },
        each);
    output.flush();
  };
  for (size_t i = 0; i < there.size() && interrupting_signal() == 0; i += kAtOnce)
    classify_some(std::span(there).subspan(i, std::min(kAtOnce, there.size() - i)));
  if (!o.common.quiet) print_diagnostic("watching {} (Ctrl-C stops)\n", printable(o.watch));
  while (interrupting_signal() == 0) classify_some(folder.next(kAtOnce));
  output.finish();
  return 0;  // that is how it ends; what could not be read was said as it came
}

void check(const PredictOptions& o) {
  if (!o.explain.empty() && o.device != "cpu")
    fail(ErrorKind::usage, "--explain computes on the processor; leave out --device {}", o.device);
  if (o.explain.empty() && !o.explain_layer.empty())
    fail(ErrorKind::usage, "--explain-layer needs --explain DIR");
  if (o.paths.empty() && o.watch.empty())
    fail(ErrorKind::usage, "PATH is required: images, folders of them, or '-' for a list");
  std::set<fs::path> names;
  std::error_code error;
  for (const std::string& file : o.outputs) {
    if (!o.watch.empty() && !file.ends_with(".csv") && !file.ends_with(".jsonl"))
      fail(ErrorKind::usage,
           "-o: {}: with --watch results are added as they come, to a .csv or "
           ".jsonl file",
           printable(file));
    if (!names.insert(fs::weakly_canonical(fs::absolute(file), error)).second)
      fail(ErrorKind::usage, "-o: {} is named twice", printable(file));
    refuse_input_as_output(file, "-o", {model_file(o.model)});
  }
  const bool page = std::any_of(o.outputs.begin(), o.outputs.end(),
                                [](const std::string& file) { return file.ends_with(".html"); });
  if (o.unsure > 0 && o.sort_into.empty() && !page)
    fail(ErrorKind::usage, "--unsure is for --sort-into DIR, or a page: -o FILE.html");
  if (!o.watch.empty() && !o.explain.empty())
    fail(ErrorKind::usage, "--explain needs all images at once; leave out --watch");
  if (o.sort_into.empty()) return;
  std::vector<std::string> sources = o.paths;
  if (!o.watch.empty()) sources.push_back(o.watch);
  for (const std::string& source : sources)
    if (source != "-" && is_within(source, sorted_folder(o)))
      fail(ErrorKind::usage,
           "--sort-into: {} lies in it, and what was sorted is not read again; choose another "
           "folder",
           printable(source));
}

int run(const PredictOptions& given, const DeviceOpener& open) {
  check(given);
  PredictOptions o = given;
  const RunContext context = o.common.context();
  if (!o.explain.empty()) return explain(o, context);
  const std::shared_ptr<const ComputeDevice> device = open(o.device, o.common);
  o.device = device_name(device.get());
  const Classifier classifier = Classifier::load(o.model, {.threads = o.common.thread_count(),
                                                           .sessions = 1,
                                                           .views = o.views,
                                                           .precision = o.precision,
                                                           .device = device});
  return o.watch.empty() ? classify(o, classifier, context) : watch(o, classifier, context);
}

}  // namespace

int run_predict(int argc, char** argv) {
  return run_predict_on(opener_by_becoming(argv), argc, argv);
}

int run_predict_on(const DeviceOpener& open, int argc, char** argv) {
  PredictOptions o;
  CLI::App app("Classifies images with a trained model.", "graft predict");
  app.add_option("MODEL", o.model, "A model.safetensors or a run folder")->required();
  app.add_option("PATH", o.paths, "Images, folders of images, or - for a list on stdin");
  app.add_option("--top", o.top, "How many labels to print for each image")
      ->check(whole_number(1, 1 << 20))
      ->capture_default_str()
      ->type_name("K");
  app.add_flag(
      "--logits", o.logits,
      "Also the logits, whose softmax the probabilities are; as JSON those of all classes");
  app.add_flag("--probabilities", o.probabilities,
               "Also the probabilities of all classes, in columns p:<class>; as text all labels");
  add_views_option(app, o.views);
  add_device_option(app, o.device);
  add_precision_option(app, o.precision);
  auto* format = app.add_option("--format", o.format, "text, json or csv")
                     ->check(one_of({"text", "json", "csv"}))
                     ->capture_default_str()
                     ->type_name("FORMAT");
  auto* json = app.add_flag("--json", o.json, "The same as --format json")->excludes(format);
  app.add_option("-o,--output", o.outputs,
                 "Write the results to this file, and to standard output only with --format: .csv, "
                 ".json, .jsonl, .xlsx, or .html, a page of thumbnails by class. May be repeated")
      ->check(parsed_by([](const std::string& file) { ResultFile::check_name(file); }))
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->type_name("FILE");
  auto* sort_into =
      app.add_option("--sort-into", o.sort_into,
                     "Copy each image into a folder of its class in this folder, where sorted.csv "
                     "says where each came from; nothing is moved or replaced")
          ->type_name("DIR");
  app.add_option("--link", o.link, "Link with --sort-into instead of copying: hard or symbolic")
      ->check(one_of({"hard", "symbolic"}))
      ->needs(sort_into)
      ->type_name("KIND");
  app.add_option(
         "--unsure", o.unsure,
         "Keep images of a lower probability apart: in the folder 'unsure', and on the page")
      ->check(within(0.0, 1.0))
      ->type_name("P");
  auto* watch =
      app.add_option("--watch", o.watch,
                     "Classify images as they come into this folder and those below it, after the "
                     "PATHs; Ctrl-C ends it. -o adds lines to a .csv or .jsonl file, and --json "
                     "prints a document a line")
          ->type_name("DIR");
  app.add_option("--watch-every", o.watch_every,
                 "Look through the folder that often, in seconds (default: the system tells, where "
                 "it can: not on network drives)")
      ->check(within(0.1, 86'400.0))
      ->needs(watch)
      ->type_name("S");
  auto* explain = app.add_option("--explain", o.explain,
                                 "Write each image, beside it a map of where the evidence for its "
                                 "label lies (Grad-CAM), "
                                 "to this folder, as <name>.png; index.csv says which is whose")
                      ->type_name("DIR");
  app.add_option("--explain-layer", o.explain_layer,
                 "The convolution to explain at (default: the last; earlier ones are finer)")
      ->type_name("LAYER");
  app.add_flag("--force", o.force,
               "Replace files of those names in DIR whatever they are (without: only such maps)")
      ->needs(explain);
  add_common_options(app, o.common);
  app.footer(
      "Examples:\n"
      "  graft predict runs/scenes beach.jpg\n"
      "  graft predict runs/scenes photos/ --top 3 --format csv > labels.csv\n"
      "  find . -name '*.jpg' | graft predict runs/scenes/model.safetensors - --json\n"
      "  graft predict runs/scenes photos/ -o labels.xlsx -o gallery.html\n"
      "  graft predict runs/scenes photos/ --sort-into sorted --unsure 0.6\n"
      "  graft predict runs/scenes --watch inbox/ -o labels.csv\n"
      "  graft predict runs/scenes beach.jpg --explain why/\n"
      "Exit code 1 if any image could not be read, or its map not be written; the others are "
      "classified all the same.");
  return run_app(app, argc, argv, [&] {
    o.format_given = format->count() > 0 || json->count() > 0;
    return run(o, open);
  });
}

}  // namespace graft::cli
