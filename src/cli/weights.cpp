// graft weights: what is published, what is here, whether it is whole, and what a file is.
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <optional>

#include "base/diagnostics.h"
#include "base/fail.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/words.h"
#include "cli/arguments.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/import_options.h"
#include "cli/option_flags.h"
#include "cli/outputs.h"
#include "cli/status_stream.h"
#include "cli/weights_inspection.h"
#include "graft/classifier.h"
#include "graft/export.h"
#include "graft/weights.h"
#include "recipe/option_values.h"

namespace graft::cli {
namespace {

struct WeightsOptions {
  CommonOptions common;
  std::string cache_dir;
  std::vector<std::string> names;
  bool include_top = false;
  std::string family;
  bool json = false;
  std::string output;
  std::string dtype = "fp32";
  bool fold = false;
  std::string source, licence;
  std::string format;
  bool without_head = false;
  int status_fd = -1;
  ImportArguments import;
};

nlohmann::json or_null(const std::string& text) {
  return text.empty() ? nlohmann::json() : nlohmann::json(text);
}

/// Whether a published file is asked for by its backbone or its family.
bool is_named(const PublishedWeights& file, const std::string& name) {
  return name == file.family || name == file.backbone;
}

int list(const WeightsOptions& o) {
  const fs::path cache = cache_folder(o.cache_dir);
  const std::vector<PublishedWeights>& all = published_weights();
  for (const std::string& name : o.names)
    if (std::none_of(all.begin(), all.end(),
                     [&](const PublishedWeights& file) { return is_named(file, name); }))
      fail(ErrorKind::usage,
           "'{}' is neither a backbone nor a family with published weights; 'graft weights list' "
           "has all (timm's vgg*.tv_in1k are torchvision's)",
           clipped(name));
  nlohmann::json rows = nlohmann::json::array();
  if (!o.json)
    print_result("{:<11} {:<8} {:<3} {:>8} {:>6}  {:<10} {}\n", "family", "backbone", "top", "size",
                 "top-1", "here", "hash");
  for (const PublishedWeights& file : all) {
    if (!o.family.empty() && file.family != o.family) continue;
    if (!o.names.empty() &&
        std::none_of(o.names.begin(), o.names.end(),
                     [&](const std::string& name) { return is_named(file, name); }))
      continue;
    const fs::path path = weights_path(file, cache);
    const WeightsState state = check_weights_size(file, cache);
    if (o.json)
      rows.push_back({{"family", file.family},
                      {"backbone", file.backbone},
                      {"include_top", file.include_top},
                      {"url", file.url},
                      {"md5", or_null(file.md5)},
                      {"sha256", or_null(file.sha256)},
                      {"bytes", file.bytes},
                      {"exact_size", file.exact_size},
                      {"top1", file.top1},
                      {"licence", file.licence},
                      {"path", path.string()},
                      {"present", state != WeightsState::absent}});
    else
      print_result("{:<11} {:<8} {:<3} {:>8} {:>6.3f}  {:<10} {}\n", file.family, file.backbone,
                   file.include_top ? "yes" : "no", format_bytes(static_cast<double>(file.bytes)),
                   file.top1,
                   state == WeightsState::good     ? "yes"
                   : state == WeightsState::absent ? "no"
                                                   : "wrong size",
                   published_hash(file));
  }
  if (o.json)
    print_json({{"folder", (cache / "weights").string()}, {"files", rows}});
  else
    print_result("folder: {}\naddresses and licences: --json\n", printable(cache / "weights"));
  return 0;
}

const PublishedWeights& need_published(const std::string& name, const WeightsOptions& o) {
  const PublishedWeights* file = find_published_weights(name, o.include_top, o.family);
  if (file == nullptr) {
    std::vector<std::string> names;
    for (const PublishedWeights& known : published_weights()) names.emplace_back(known.backbone);
    fail(ErrorKind::usage,
         "no published weights for '{}'{}{}; 'graft weights list' shows what there is",
         clipped(name), o.family.empty() ? "" : " by " + o.family, did_you_mean(name, names));
  }
  return *file;
}

int fetch(const WeightsOptions& o) {
  if (o.names.empty())
    fail(ErrorKind::usage, "name the backbone: 'graft weights download vgg16' or vgg19");
  const fs::path cache = cache_folder(o.cache_dir);
  for (const std::string& typed : o.names) {
    const PublishedWeights& file = need_published(typed, o);
    const fs::path path = weights_path(file, cache);
    std::error_code error;
    if (fs::exists(path, error)) {
      if (check_weights(file, cache) == WeightsState::good) {
        print_result("{}: already there\n", printable(path));
        continue;
      }
      fail(ErrorKind::input, "{}: is there, but is not the published file; delete it first",
           printable(path));
    }
    download_weights(file, cache, o.common.context());
    print_result("{}\n", printable(path));
  }
  return 0;
}

/// Files that were fetched by hand go where they are looked for.
int import_files(const WeightsOptions& o) {
  if (o.names.empty())
    fail(ErrorKind::usage, "name the file: 'graft weights import vgg16-397923af.pth'");
  const fs::path cache = cache_folder(o.cache_dir);
  for (const std::string& name : o.names) {
    const PublishedWeights& file = import_weights(name, cache);
    print_result("{}: {}, now {}\n", printable(name), file.source,
                 printable(weights_path(file, cache)));
  }
  return 0;
}

/// One row of `verify`: what is wrong with a file, or nothing.
std::string problem(WeightsState state) {
  switch (state) {
    case WeightsState::wrong_size:
      return "wrong size: delete and download it again";
    case WeightsState::wrong_hash:
      return "wrong hash: delete and download it again";
    case WeightsState::absent:
    case WeightsState::good:
      break;
  }
  return "";
}

int verify(const WeightsOptions& o) {
  const fs::path cache = cache_folder(o.cache_dir);
  int bad = 0;
  int seen = 0;
  nlohmann::json rows = nlohmann::json::array();
  const auto report = [&](const fs::path& path, const std::string& why, const std::string& source) {
    ++seen;
    bad += why.empty() ? 0 : 1;
    rows.push_back(
        {{"path", path.string()}, {"ok", why.empty()}, {"why", why}, {"source", source}});
    if (!o.json)
      print_result("{}: {}\n", printable(path), why.empty() ? "good (" + source + ")" : why);
  };
  if (o.names.empty()) {
    for (const PublishedWeights& file : published_weights()) {
      const WeightsState state = check_weights(file, cache);
      if (state != WeightsState::absent)
        report(weights_path(file, cache), problem(state), file.source);
    }
  }
  for (const std::string& name : o.names) {
    if (const PublishedWeights* file = find_published_weights(name, o.include_top, o.family)) {
      const WeightsState state = check_weights(*file, cache);
      report(weights_path(*file, cache),
             state == WeightsState::absent ? "not downloaded" : problem(state), file->source);
      continue;
    }
    std::error_code error;
    if (fs::is_directory(name, error)) {
      // A run's model has a hash of its own, which reading compares.
      const fs::path model = model_file(name);
      std::string why;
      try {
        static_cast<void>(read_model_info(model));
      } catch (const Error& problem) {
        why = problem.what();
      }
      report(model, why, "a model of Graft's");
      continue;
    }
    const PublishedWeights* file = recognise_weights(name);
    report(name, file == nullptr ? "not one of the published files" : "",
           file == nullptr ? "" : file->source);
  }
  if (o.json)
    print_json({{"files", rows}});
  else if (seen == 0)
    print_result("nothing to verify in {}\n", printable(cache / "weights"));
  return bad == 0 ? 0 : 1;
}

int inspect(const WeightsOptions& o) {
  if (o.names.empty())
    fail(ErrorKind::usage, "name a file: 'graft weights inspect FILE', or a run folder");
  nlohmann::json rows = nlohmann::json::array();
  bool all = true;
  for (const std::string& name : o.names) {
    try {
      const WeightsInspection about = inspect_weights(name);
      all = all && !about.fits.empty() && about.damage.empty();
      if (o.json)
        rows.push_back(inspection_json(name, about));
      else
        print_inspection(name, about);
    } catch (const Error& error) {
      // Of several files the others are of interest.
      if (o.names.size() == 1 || error.kind() == ErrorKind::interrupted) throw;
      all = false;
      print_diagnostic("graft: {}\n", with_flags(error.what()));
      if (o.json) rows.push_back({{"path", name}, {"error", with_flags(error.what())}});
    }
  }
  if (o.json) print_json({{"files", rows}});
  return all ? 0 : 1;
}

/// The program that writes other runtimes' files does the rest.
int become_export(const WeightsOptions& o, const std::string& model, const std::string& output) {
  if (!o.source.empty() || !o.licence.empty() || o.fold)
    fail(ErrorKind::usage,
         "--source, --licence and --fold-batchnorm are for Graft's own files; leave them out");
  const fs::path program = companion_program("graft-export");
  std::vector<std::string> words = {"export", model, "-o", output, "--dtype", o.dtype};
  const auto add = [&](const char* flag, const std::string& value) {
    if (!value.empty()) words.insert(words.end(), {flag, value});
  };
  add("--format", o.format);
  add("--classes", o.import.classes);
  add("--preprocessing", options::value_text(o.import.preprocessing));
  add("--head", o.import.head);
  add("--resampling", options::value_text(o.import.resampling));
  if (o.import.input != InputSize())
    add("--input-size", fmt::format("{}x{}", o.import.input.height, o.import.input.width));
  if (o.without_head) words.emplace_back("--without-head");
  if (o.status_fd >= 0) add("--status-fd", std::to_string(o.status_fd));
  if (o.json) words.emplace_back("--json");
  if (o.common.threads > 0) add("--threads", std::to_string(o.common.threads));
  if (o.common.quiet) words.emplace_back("--quiet");
  if (o.common.verbose) words.emplace_back("--verbose");
  std::vector<char*> arguments;
  arguments.reserve(words.size() + 1);
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  ::execv(program.c_str(), arguments.data());
  fail(ErrorKind::io, "{}: cannot start the exporting program: {}; build or install Graft anew",
       printable(program), system_error_text(errno));
}

/// Between everything that Graft reads and everything that it writes.
int convert(WeightsOptions o) {
  const bool old = !o.output.empty();
  if (o.names.size() != (old ? 1 : 2))
    fail(ErrorKind::usage, "'graft weights convert IN OUT': one file to read, one to write");
  const std::string& in = o.names.front();
  const std::string& out = old ? o.output : o.names.back();
  const char* option = old ? "--output" : "OUT";
  const bool graft =
      (o.format.empty() && fs::path(out).extension() == ".safetensors") || o.format == "graft";
  if (graft && fs::path(out).extension() != ".safetensors")
    fail(ErrorKind::usage, "{}: {}: the name must end in .safetensors", option, out);
  const bool trunk = o.without_head || (old && graft);
  if (!graft) refuse_weights_alone(out, option);
  if (!graft && o.format.empty() && !export_format(out))
    fail(ErrorKind::usage,
         "{}: {}: the name must end in .safetensors (a model of Graft's), .onnx, .keras, .h5, .pth "
         "or .pt, or --format say which it is",
         option, out);
  if (trunk && (!o.import.head.empty() || !o.import.classes.empty()))
    fail(ErrorKind::usage,
         "{} for a classifier, and {} writes the backbone alone; for the whole one say 'graft "
         "weights convert IN OUT'",
         o.import.head.empty() ? "--classes is" : "--head is", old ? "-o" : "--without-head");
  std::error_code error;
  refuse_input_as_output(out, option,
                         {fs::is_directory(in, error) ? model_file(in) : fs::path(in)});
  if (!graft) return become_export(o, in, out);
  ConvertOptions options{
      .half = o.dtype == "fp16", .fold_batchnorm = o.fold, .source = {}, .licence = {}};
  if (!o.source.empty()) options.source = o.source;
  if (!o.licence.empty()) options.licence = o.licence;
  if (o.status_fd >= 0) o.common.report_to(std::make_shared<StatusStream>(o.status_fd));
  const std::string backbone =
      trunk ? convert_weights(in, out, options, o.import.import(), o.common.context())
            : convert_classifier(in, out, options, o.import.import(), o.common.context());
  tell_wrote(o.common, out);
  if (o.json) {
    print_json({{"output", out},
                {"bytes", fs::file_size(out, error)},
                {"backbone", backbone},
                {"with_head", !trunk}});
    return 0;
  }
  print_result("{}: {}{}, {}\n", printable(out), backbone, trunk ? "" : " with its head",
               format_bytes(static_cast<double>(fs::file_size(out, error))));
  return 0;
}

}  // namespace

int run_weights(int argc, char** argv) {
  WeightsOptions o;
  std::string action;
  std::vector<std::string> published;
  for (const PublishedWeights& weights : published_weights())
    if (std::find(published.begin(), published.end(), weights.backbone) == published.end())
      published.push_back(weights.backbone);
  CLI::App app(
      "Weights of backbones: what is published, fetching it, checking it; a model's for reuse.",
      "graft weights");
  app.add_option("ACTION", action, "list, inspect, download, import, verify or convert")
      ->required()
      ->check(one_of({"list", "inspect", "download", "import", "verify", "convert"}))
      ->type_name("ACTION");
  app.add_option(
         "NAME", o.names,
         "Backbones (vgg16, vgg19_bn); for inspect files and run folders; for import files; "
         "for verify also files and run folders; for convert IN and OUT: any file or run folder "
         "that Graft reads, "
         "and the file to "
         "write, .safetensors (a model of Graft's), .onnx, .keras, .h5, .pth")
      ->check(with_choices({[](const std::string&) { return std::string(); }, ""}, published))
      ->type_name("PATH");
  app.add_option("-o,--output", o.output,
                 "convert: write the backbone of IN alone, as --without-head does")
      ->type_name("FILE");
  app.add_option("--dtype", o.dtype, "convert: how to store the values")
      ->check(one_of({"fp32", "fp16"}))
      ->capture_default_str()
      ->type_name("fp32|fp16");
  app.add_option(
         "--format", o.format,
         "convert: graft, onnx, keras, torch or safetensors (torchvision's names); default: "
         "by the name of OUT, .safetensors being graft")
      ->check(one_of({"graft", "onnx", "keras", "torch", "safetensors"}))
      ->type_name("FORMAT");
  app.add_flag(
      "--without-head", o.without_head,
      "convert: the backbone alone, to start trainings from, as .safetensors, .pth or .h5");
  add_import_options(app, o.import);
  app.add_flag("--fold-batchnorm", o.fold,
               "convert: fold BatchNorm into the convolutions: vgg16_bn becomes vgg16");
  app.add_option("--source", o.source, "convert: where the weights come from, to be recorded")
      ->type_name("TEXT");
  app.add_option("--licence", o.licence, "convert: their licence, to be recorded")
      ->type_name("TEXT");
  app.add_flag("--include-top", o.include_top, "The file with fc1, fc2 and predictions");
  app.add_option("--family", o.family,
                 "Whose weights: keras or torchvision (default: Keras', or else torchvision's)")
      ->check(one_of({"keras", "torchvision"}))
      ->type_name("FAMILY");
  app.add_option("--cache-dir", o.cache_dir,
                 "Graft's cache folder (default: $XDG_CACHE_HOME/graft or ~/.cache/graft)")
      ->type_name("DIR");
  app.add_flag("--json", o.json, "One JSON document on stdout (list, inspect, verify, convert)");
  add_status_option(app, o.status_fd);
  add_common_options(app, o.common);
  app.footer(
      "Examples:\n"
      "  graft weights list\n"
      "  graft weights inspect vgg16-397923af.pth\n"
      "  graft weights download vgg19\n"
      "  graft weights download vgg16_bn\n"
      "  graft weights import Downloads/vgg16-397923af.pth\n"
      "  graft weights verify\n"
      "  graft weights convert theirs.keras mine.safetensors --classes cat,dog\n"
      "  graft weights convert runs/mine backbone.safetensors --without-head\n"
      "  graft train photos/ --weights backbone.safetensors\n"
      "$GRAFT_WEIGHTS_URL names another server that has the same files; https_proxy is honoured. "
      "timm's vgg*.tv_in1k are torchvision's weights under other names.");
  return run_app(app, argc, argv, [&] {
    if (action == "list") return list(o);
    if (action == "convert") return reporting_errors(o.status_fd, [&] { return convert(o); });
    if (o.status_fd >= 0) fail(ErrorKind::usage, "--status-fd is for 'graft weights convert'");
    if (action == "inspect") return inspect(o);
    if (action == "import") return import_files(o);
    return action == "download" ? fetch(o) : verify(o);
  });
}

}  // namespace graft::cli
