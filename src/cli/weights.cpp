// graft weights: what is published, what is here, and whether it is whole.
#include <optional>

#include "base/fail.h"
#include "base/file.h"
#include "base/words.h"
#include "cli/arguments.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/outputs.h"
#include "graft/classifier.h"
#include "graft/weights.h"

namespace graft::cli {
namespace {

struct WeightsOptions {
  CommonOptions common;
  std::string cache_dir;
  std::vector<std::string> names;
  bool include_top = false;
  bool json = false;
  std::string output;
  std::string dtype = "fp32";
  bool fold = false;
  std::string source, licence;
};

int list(const WeightsOptions& o) {
  const fs::path cache = cache_folder(o.cache_dir);
  nlohmann::json rows = nlohmann::json::array();
  if (!o.json)
    print_result("{:<9} {:<4} {:>9}  {:<32}  {}\n", "backbone", "top", "size", "MD5", "here");
  for (const PublishedWeights& file : published_weights()) {
    std::error_code error;
    const fs::path path = weights_path(file, cache);
    const bool exists = fs::exists(path, error);
    const bool here = exists && fs::file_size(path, error) == file.bytes;
    if (o.json)
      rows.push_back({{"backbone", file.backbone},
                      {"include_top", file.include_top},
                      {"url", file.url},
                      {"md5", file.md5},
                      {"bytes", file.bytes},
                      {"licence", file.licence},
                      {"path", path.string()},
                      {"present", exists}});
    else
      print_result("{:<9} {:<4} {:>9}  {:<32}  {}\n", file.backbone,
                   file.include_top ? "yes" : "no", format_bytes(static_cast<double>(file.bytes)),
                   file.md5,
                   here     ? "yes"
                   : exists ? "wrong size"
                            : "no");
  }
  if (o.json)
    print_json({{"folder", (cache / "weights").string()}, {"files", rows}});
  else
    print_result("folder: {}\n", printable(cache / "weights"));
  return 0;
}

const PublishedWeights& need_published(const std::string& name, bool include_top) {
  const PublishedWeights* file = find_published_weights(name, include_top);
  if (file == nullptr) {
    std::vector<std::string> names;
    for (const PublishedWeights& known : published_weights()) names.emplace_back(known.backbone);
    fail(ErrorKind::usage,
         "no published weights for '{}'{}; 'graft weights list' shows what there is", clipped(name),
         did_you_mean(name, names));
  }
  return *file;
}

int fetch(const WeightsOptions& o) {
  if (o.names.empty())
    fail(ErrorKind::usage, "name the backbone: 'graft weights download vgg16' or vgg19");
  const fs::path cache = cache_folder(o.cache_dir);
  for (const std::string& typed : o.names) {
    const PublishedWeights& file = need_published(typed, o.include_top);
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

/// One row of `verify`: what is wrong with a file, or nothing.
std::string problem(WeightsState state) {
  switch (state) {
    case WeightsState::wrong_size:
      return "wrong size: delete and download it again";
    case WeightsState::wrong_md5:
      return "wrong MD5: delete and download it again";
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
    if (const PublishedWeights* file = find_published_weights(name, o.include_top)) {
      const WeightsState state = check_weights(*file, cache);
      report(weights_path(*file, cache),
             state == WeightsState::absent ? "not downloaded" : problem(state), file->source);
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

/// From a model to the backbone in it, as a file for --weights.
int convert(const WeightsOptions& o) {
  if (o.names.size() != 1 || o.output.empty())
    fail(ErrorKind::usage,
         "'graft weights convert MODEL -o FILE.safetensors': one model, one file");
  if (fs::path(o.output).extension() != ".safetensors")
    fail(ErrorKind::usage, "--output: {}: the name must end in .safetensors", o.output);
  refuse_input_as_output(o.output, "--output", {model_file(o.names.front())});
  ConvertOptions options{
      .half = o.dtype == "fp16", .fold_batchnorm = o.fold, .source = {}, .licence = {}};
  if (!o.source.empty()) options.source = o.source;
  if (!o.licence.empty()) options.licence = o.licence;
  const std::string backbone = convert_weights(o.names.front(), o.output, options);
  std::error_code error;
  print_result("{}: {}, {}\n", printable(o.output), backbone,
               format_bytes(static_cast<double>(fs::file_size(o.output, error))));
  return 0;
}

}  // namespace

int run_weights(int argc, char** argv) {
  WeightsOptions o;
  std::string action;
  std::vector<std::string> published;
  for (const PublishedWeights& weights : published_weights())
    if (!weights.include_top) published.push_back(weights.backbone);
  CLI::App app(
      "Weights of backbones: what is published, fetching it, checking it; a model's for reuse.",
      "graft weights");
  app.add_option("ACTION", action, "list, download, verify or convert")
      ->required()
      ->check(one_of({"list", "download", "verify", "convert"}))
      ->type_name("ACTION");
  app.add_option("NAME", o.names,
                 "Backbones (vgg16, vgg19); for verify also files; for "
                 "convert a model")
      ->check(with_choices({[](const std::string&) { return std::string(); }, ""}, published))
      ->type_name("PATH");
  app.add_option("-o,--output", o.output, "convert: the file to write")->type_name("FILE");
  app.add_option("--dtype", o.dtype, "convert: how to store the values")
      ->check(one_of({"fp32", "fp16"}))
      ->capture_default_str()
      ->type_name("fp32|fp16");
  app.add_flag("--fold-batchnorm", o.fold,
               "convert: fold BatchNorm into the convolutions: vgg16_bn becomes vgg16");
  app.add_option("--source", o.source, "convert: where the weights come from, to be recorded")
      ->type_name("TEXT");
  app.add_option("--licence", o.licence, "convert: their licence, to be recorded")
      ->type_name("TEXT");
  app.add_flag("--include-top", o.include_top, "The file with fc1, fc2 and predictions");
  app.add_option("--cache-dir", o.cache_dir,
                 "Graft's cache folder (default: $XDG_CACHE_HOME/graft or ~/.cache/graft)")
      ->type_name("DIR");
  app.add_flag("--json", o.json, "One JSON document on stdout (list, verify)");
  add_common_options(app, o.common);
  app.footer(
      "Examples:\n"
      "  graft weights list\n"
      "  graft weights download vgg19\n"
      "  graft weights verify\n"
      "  graft weights convert runs/mine -o backbone.safetensors\n"
      "  graft train photos/ --weights backbone.safetensors\n"
      "$GRAFT_WEIGHTS_MIRROR names another server that has the same files.");
  return run_app(app, argc, argv, [&] {
    if (action == "list") return list(o);
    if (action == "convert") return convert(o);
    return action == "download" ? fetch(o) : verify(o);
  });
}

}  // namespace graft::cli
