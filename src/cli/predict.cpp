// graft predict: classify images.
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>
#include <set>

#include "base/csv.h"
#include "base/diagnostics.h"
#include "base/fail.h"
#include "base/file.h"
#include "base/file_names.h"
#include "base/limits.h"
#include "cli/arguments.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/numbers.h"
#include "cli/outputs.h"
#include "cli/signals.h"
#include "graft/classifier.h"
#include "graft/dataset.h"
#include "graft/explain.h"
#include "graft/image.h"
#include "recipe/option_values.h"

namespace graft::cli {
namespace {

struct PredictOptions {
  CommonOptions common;
  std::string model;
  std::vector<std::string> paths;
  int top = 1;
  int views = 0;
  Precision precision = Precision::fp32;
  std::string format = "text";
  std::string explain;
  std::string explain_layer;
  bool force = false;
  bool json = false;
  bool logits = false;
};

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

/// Images in the order given; what cannot be found is reported by `on_error`.
std::vector<fs::path> collect(
    const std::vector<std::string>& arguments,
    const std::function<void(const std::string&, const std::string&)>& on_error) {
  std::vector<fs::path> paths;
  const auto add = [&](const std::string& argument) {
    try {
      for (fs::path& path : list_images(argument)) paths.push_back(std::move(path));
      if (const std::string unread = unread_images(argument); !unread.empty())
        print_diagnostic("graft: {}: {}; left out\n", printable(argument), unread);
    } catch (const Error& error) {
      on_error(argument, error.what());
    }
  };
  for (const std::string& argument : arguments) {
    if (argument != "-") {
      add(argument);
      continue;
    }
    each_line_of_input([&](std::string line) {
      if (!line.empty() && line.back() == '\r') line.pop_back();
      if (!line.empty()) add(line);
    });
  }
  return paths;
}

/// Writes results one by one in the format asked for.
class Output {
 public:
  Output(const PredictOptions& options, const std::vector<std::string>& classes)
      : json_(options.json || options.format == "json"),
        csv_(options.format == "csv"),
        logits_(options.logits),
        top_(std::min<size_t>(options.top, classes.size())),
        classes_(classes),
        precision_(options::word(resolve_precision(options.precision))) {
    if (csv_ && !json_) {
      print_result("path");
      for (size_t k = 1; k <= top_; ++k) {
        const std::string number = k > 1 ? fmt::format("_{}", k) : "";
        print_result(",label{0},probability{0}", number);
        if (logits_) print_result(",logit{}", number);
      }
      print_result("\n");
    }
  }

  void add(const fs::path& path, const Prediction& p) {
    if (json_) {
      nlohmann::json top = nlohmann::json::array();
      for (size_t k = 0; k < top_; ++k)
        top.push_back({{"label", label(p, k)}, {"probability", probability(p, k)}});
      nlohmann::json row = {{"path", path.string()},
                            {"label", label(p, 0)},
                            {"probability", probability(p, 0)},
                            {"top", top}};
      if (logits_) row["logits"] = p.logits;
      rows_.push_back(std::move(row));
    } else if (csv_) {
      print_result("{}", csv_field(path.string()));
      for (size_t k = 0; k < top_; ++k) {
        print_result(",{},{:.6f}", csv_field(label(p, k)), probability(p, k));
        if (logits_) print_result(",{}", logit(p, k));
      }
      print_result("\n");
    } else {
      print_result("{}:", printable(path));
      for (size_t k = 0; k < top_; ++k) {
        print_result("{} {} {:.4f}", k > 0 ? "," : "", printable(label(p, k)), probability(p, k));
        if (logits_) print_result(" (logit {:.4f})", logit(p, k));
      }
      print_result("\n");
    }
  }

  void add_error(const std::string& path, const std::string& message) {
    std::fflush(stdout);  // keeps the two streams in order on a terminal
    print_diagnostic("graft: {}\n", message);
    errors_.push_back({{"path", path}, {"error", message}});
  }

  int finish() {
    if (json_) {
      nlohmann::json all = {{"predictions", rows_}, {"errors", errors_}, {"precision", precision_}};
      if (logits_) all["classes"] = classes_;
      print_json(all);
    }
    return errors_.empty() ? 0 : 1;
  }

  /// Results that appear as they come need no progress bar beside them.
  [[nodiscard]] bool shows_progress() const { return json_ || ::isatty(STDOUT_FILENO) == 0; }

 private:
  [[nodiscard]] const std::string& label(const Prediction& p, size_t k) const {
    return classes_[p.ranking[k]];
  }
  static double probability(const Prediction& p, size_t k) { return p.probabilities[p.ranking[k]]; }

  static float logit(const Prediction& p, size_t k) { return p.logits[p.ranking[k]]; }

  bool json_;
  bool csv_;
  bool logits_;
  size_t top_;
  const std::vector<std::string>& classes_;
  std::string_view precision_;
  nlohmann::json rows_ = nlohmann::json::array();
  nlohmann::json errors_ = nlohmann::json::array();
};

/// Writes maps of where the evidence lies: DIR/<name>.png, numbered where names repeat.
class MapWriter {
 public:
  MapWriter(const PredictOptions& o, const Explainer& explainer, std::span<const fs::path> paths)
      : folder_(o.explain),
        explainer_(explainer),
        paths_(paths),
        names_(unique_file_names(paths, ".png")) {
    refuse_inputs_as_targets();
    std::vector<fs::path> targets;
    for (const std::string& name : names_) targets.push_back(folder_ / name);
    refuse_foreign(targets, "--explain", "a map that 'graft predict --explain' drew",
                   "another folder", o.force,
                   [](const fs::path& file) { return is_png_of(file, kMapSoftware); });
    make_folder(folder_);
  }

  /// Returns why the map cannot be written; empty where it is.
  std::string write(size_t index, const ActivationMap& map, const Image& image) {
    try {
      // Of a huge image a smaller one tells as much.
      const double scale = std::min(1.0, kMaxSide / std::max(image.width, image.height));
      const Image shown =
          scale < 1
              ? resize(image, std::max(1, static_cast<int>(image.width * scale)),
                       std::max(1, static_cast<int>(image.height * scale)), Resampling::bilinear)
              : image;
      const std::vector<std::byte> png = encode_png(explainer_.overlay(shown, map), kMapSoftware);
      write_file_atomic(folder_ / names_[index],
                        {reinterpret_cast<const char*>(png.data()), png.size()});
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::io && error.kind() != ErrorKind::input) throw;
      return fmt::format("--explain: {}", error.what());
    }
    return "";
  }

 private:
  static constexpr double kMaxSide = 1024;  // pixels

  void refuse_inputs_as_targets() const {
    std::set<fs::path> inputs;
    std::error_code error;
    for (const fs::path& path : paths_) inputs.insert(fs::weakly_canonical(path, error));
    for (const std::string& name : names_)
      if (inputs.contains(fs::weakly_canonical(folder_ / name, error)))
        fail(ErrorKind::usage,
             "--explain: {} is one of the images and would be replaced; choose another folder",
             printable(folder_ / name));
  }

  fs::path folder_;
  const Explainer& explainer_;
  std::span<const fs::path> paths_;
  std::vector<std::string> names_;
};

/// Labels alone.
int classify(const PredictOptions& o, const RunContext& context) {
  const Classifier classifier = Classifier::load(o.model, {.threads = o.common.thread_count(),
                                                           .sessions = 1,
                                                           .views = o.views,
                                                           .precision = o.precision});
  Output output(o, classifier.classes());
  const std::vector<fs::path> paths = collect(
      o.paths, [&](const auto& path, const auto& message) { output.add_error(path, message); });
  RunContext each = context;
  if (!output.shows_progress()) each.reporter = nullptr;
  classify_files(
      classifier, paths, [&](size_t i, const Prediction& p) { output.add(paths[i], p); },
      [&](size_t i, const std::string& message) { output.add_error(paths[i].string(), message); },
      each);
  return output.finish();
}

/// Labels and maps.
int explain(const PredictOptions& o, const RunContext& context) {
  Explainer explainer = Explainer::load(o.model, o.explain_layer, context, o.views, o.precision);
  Output output(o, explainer.info().classes);
  const std::vector<fs::path> paths = collect(
      o.paths, [&](const auto& path, const auto& message) { output.add_error(path, message); });
  MapWriter writer(o, explainer, paths);
  RunContext each = context;
  if (!output.shows_progress()) each.reporter = nullptr;
  explain_files(
      explainer, paths,
      [&](size_t i, const ActivationMap& map, const Image& image) {
        const std::string path = paths[i].string();
        try {
          output.add(paths[i], to_prediction(map.logits));
        } catch (const Error& error) {
          if (error.kind() != ErrorKind::input) throw;
          output.add_error(path, fmt::format("{}: {}", printable(paths[i]), error.what()));
        }
        if (const std::string why = writer.write(i, map, image); !why.empty())
          output.add_error(path, why);
      },
      [&](size_t i, const std::string& message) { output.add_error(paths[i].string(), message); },
      each);
  return output.finish();
}

int run(const PredictOptions& o) {
  if (o.explain.empty() && !o.explain_layer.empty())
    fail(ErrorKind::usage, "--explain-layer needs --explain DIR");
  return o.explain.empty() ? classify(o, o.common.context()) : explain(o, o.common.context());
}

}  // namespace

int run_predict(int argc, char** argv) {
  PredictOptions o;
  CLI::App app("Classifies images with a trained model.", "graft predict");
  app.add_option("MODEL", o.model, "A model.safetensors or a run folder")->required();
  app.add_option("PATH", o.paths, "Images, folders of images, or - for a list on stdin")
      ->required();
  app.add_option("--top", o.top, "How many labels to print for each image")
      ->check(whole_number(1, 1 << 20))
      ->capture_default_str()
      ->type_name("K");
  app.add_flag(
      "--logits", o.logits,
      "Also the logits, whose softmax the probabilities are; as JSON those of all classes");
  add_views_option(app, o.views);
  add_precision_option(app, o.precision);
  auto* format = app.add_option("--format", o.format, "text, json or csv")
                     ->check(one_of({"text", "json", "csv"}))
                     ->capture_default_str()
                     ->type_name("FORMAT");
  auto* explain =
      app.add_option(
             "--explain", o.explain,
             "Write each image with a map of where the evidence for its label lies (Grad-CAM) "
             "to this folder, as <name>.png, numbered where names repeat")
          ->type_name("DIR");
  app.add_option("--explain-layer", o.explain_layer,
                 "The convolution to explain at (default: the last; earlier ones are finer)")
      ->type_name("LAYER");
  app.add_flag("--force", o.force,
               "Replace files of those names in DIR whatever they are (without: only such maps)")
      ->needs(explain);
  app.add_flag("--json", o.json, "The same as --format json")->excludes(format);
  add_common_options(app, o.common);
  app.footer(
      "Examples:\n"
      "  graft predict runs/scenes beach.jpg\n"
      "  graft predict runs/scenes photos/ --top 3 --format csv > labels.csv\n"
      "  find . -name '*.jpg' | graft predict runs/scenes/model.safetensors - --json\n"
      "  graft predict runs/scenes beach.jpg --explain why/\n"
      "Exit code 1 if any image could not be read, or its map not be written; the others are "
      "classified all the same.");
  return run_app(app, argc, argv, [&] { return run(o); });
}

}  // namespace graft::cli
